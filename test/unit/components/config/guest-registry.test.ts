import { expect, test } from "vitest";
import { certificate } from "../../../fixtures/certificates.ts";
import { aksSnp, type Case, expectMistakes, manifest, mistakesIn, snp, stack, withGroup } from "./stacks.ts";

const upstream = { platform: "metal-qemu-snp", payload: manifest("kata-go") };
const local = { platform: "local", payload: manifest("local") };
const credentials = JSON.stringify({ auths: { "registry.example": { auth: "dTpw" } } });
const told = (guest: object, ...runtimes: object[]) => ({ ...withGroup({ runtimes }), registry: { guest } });
const secretly = { secretKeys: ["registry"] };

test.each<Case>([
  [
    "guests that pull nothing",
    told({ proxy: { https: "http://p:1" } }, local),
    {
      "registry.guest": "reaches no guest: no runtime here has guests that pull images themselves. Remove it.",
    },
  ],
  [
    "logins of the wrong kind, for Contrast's",
    told({ credentialsUri: "kbs:///a/b/c", registries: { "r.example:5000": {} } }, snp),
    {
      "registry.guest.registries.r.example:5000":
        "has a port or is an address: Contrast's guests know registries by their host's name alone. Give it a name with the default port.",
      "registry.guest.credentialsUri":
        "is for guests of upstream Kata: Contrast's ask no key broker for logins. Set registry.guest.credentials for them.",
    },
  ],
  [
    "logins of the wrong kind, for upstream's",
    told({ credentials }, upstream),
    {
      "registry.guest.credentials":
        "[secret] reaches Contrast's guests only, and no runtime here has those. Upstream's read initdata, which the host can read: put the file into their key broker and set credentialsUri.",
    },
  ],
  [
    "logins that cannot be used",
    told({ credentials: JSON.stringify({ auths: { "r.example/team": { auth: "dTpw" } } }) }, snp),
    {
      "registry.guest.credentials":
        '[secret] cannot be used: registry.guest.credentials has a login for "r.example/team"',
    },
  ],
  [
    "what is no proxy, no host, no mirror and no address of a key broker",
    told(
      {
        proxy: { https: "http://user:password@p:1" },
        registries: { "https://r.example": {}, "s.example": { mirror: "m.example/path" } },
        credentialsUri: "user:password",
      },
      snp,
      upstream,
    ),
    {
      "registry.guest.proxy.https":
        "[secret] must be http://host:port or https://host:port, without a login: everybody can read it.",
      "registry.guest.registries.https://r.example":
        '"https://r.example" must be a registry\'s host, as images name it.',
      "registry.guest.registries.s.example.mirror": '"m.example/path" must be host[:port] without a scheme or a path.',
      "registry.guest.credentialsUri": '"user:password" must be kbs:///<repository>/<type>/<tag>.',
    },
  ],
])("what guests are told: %s", async (_what, entries, says) => {
  await expectMistakes(entries, says, secretly);
});

test("logins are encrypted", async () => {
  expect((await mistakesIn(told({ credentials }, snp), { secretKeys: [] })).join()).toContain(
    "registry.guest.credentials: is a secret in plain text. Encrypt it",
  );
});

test("one setting for both kinds of guest", async () => {
  const guest = {
    proxy: { https: "http://p.example:3128", noProxy: ".example" },
    registries: { "registry.example": { ca: certificate("authority"), mirror: "m.example" } },
    ...{ credentials, credentialsUri: "kbs:///default/credential/pull" },
  };
  expect(await mistakesIn(told(guest, snp, upstream), secretly)).toEqual([]);
});

test("AKS has no such guests", async () => {
  const aks = stack({ registry: { guest: {} }, groups: { w: { distribution: "aks", runtimes: [aksSnp] } } });
  expect((await mistakesIn(aks)).join()).toContain("registry.guest: reaches no guest");
});
