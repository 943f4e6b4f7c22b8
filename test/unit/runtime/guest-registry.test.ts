// An independent reader: the product itself reads TOML with smol-toml.
import { parse } from "@iarna/toml";
import { describe, expect, test } from "vitest";
import { kataCommandLine } from "../../../measure/kata-kernel-command-line.ts";
import { launchValues } from "../../../measure/launch-values.ts";
import { deriveRuntime, measuredRuntime } from "../../../measure/runtime.ts";
import { deriveSpec } from "../../../runtime/derive.ts";
import {
  cdhImage,
  type GuestRegistry,
  imagePullerConfiguration,
  problemsForContrast,
} from "../../../runtime/guest-registry.ts";
import { withGuestRegistry } from "../../../workload/initdata.ts";
import { fixtureManifest } from "./fixtures.ts";

const platform = "metal-qemu-snp" as const;
const ca = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const auth = Buffer.from("u:p").toString("base64");
const registry: GuestRegistry = {
  proxy: { https: "http://proxy.example.com:3128", noProxy: ".corp.example" },
  registries: { "registry.corp.example": { ca }, "docker.io": { mirror: "mirror.corp.example" } },
};

describe("Contrast's guests", () => {
  const read = (given: GuestRegistry) => parse(imagePullerConfiguration(given));

  test("get a file in the form of their image puller, with logins", () => {
    const credentials = JSON.stringify({
      auths: { "https://index.docker.io/v1/": { auth }, "registry.corp.example": { username: "u", password: "p" } },
    });
    expect(read({ ...registry, credentials })).toEqual({
      "extra-env": { HTTPS_PROXY: "http://proxy.example.com:3128", NO_PROXY: ".corp.example" },
      registries: {
        "index.docker.io.": { auth, mirror: "https://mirror.corp.example" },
        "registry.corp.example.": { auth, "ca-certs": ca },
      },
    });
    expect(read({})).toEqual({});
  });

  test.each([
    [{ "registry.example:5000": { auth } }, 'has a login for "registry.example:5000", but Contrast\'s guests know'],
    [{ "registry.example": { identitytoken: "secret-token" } }, 'no user name and password for "registry.example"'],
  ])("a login that they cannot use is refused, without a word of it: %j", (auths, says) => {
    const make = () => imagePullerConfiguration({ credentials: JSON.stringify({ auths }) });
    expect(make).toThrow(says);
    expect(make).not.toThrow(/secret-token/);
  });

  test("know registries by their name alone, and ask no key broker", () => {
    expect(Object.keys(problemsForContrast(registry))).toEqual([]);
    const wrong = { registries: { "r.example:5000": {}, "10.0.0.1": {} }, credentialsUri: "kbs:///a/b/c" };
    expect(Object.keys(problemsForContrast(wrong))).toEqual([
      "registries.r.example:5000",
      "registries.10.0.0.1",
      "credentialsUri",
    ]);
  });

  test("read it at a place of their own; nothing of it is in the spec or measured, but that it is there is in the handler", () => {
    const manifest = fixtureManifest("contrast-go");
    const [plain, told] = [false, true].map((guestRegistry) => measuredRuntime({ platform, manifest, guestRegistry }));
    if (plain === undefined || told === undefined) throw new Error("both are there");
    const { handler, imagePuller, kataConfig } = told.spec;
    expect(imagePuller).toBe("etc/host-config/contrast-imagepuller.toml");
    expect(kataConfig.content).toContain(
      `contrast_imagepuller_config = "/opt/edgeless/${handler}/etc/host-config/contrast-imagepuller.toml"`,
    );
    expect(handler).not.toBe(plain.spec.handler);
    expect(plain.spec).not.toHaveProperty("imagePuller");
    expect(launchValues(told)).toEqual(launchValues(plain));
    const line = (guestRegistry: boolean) =>
      kataCommandLine(manifest, deriveSpec({ platform, manifest, guestRegistry }).configuration);
    expect(line(true)).toBe(line(false));
    expect(line(true)).toBeDefined();
  });

  test.each(["kata-go", "kata-rs"])("%s is no such guest: nothing changes on its nodes", (name) => {
    const manifest = fixtureManifest(name);
    expect(deriveRuntime({ platform, manifest, guestRegistry: true })).toEqual(deriveRuntime({ platform, manifest }));
  });
});

describe("upstream's guests", () => {
  const image = {
    authenticated_registry_credentials_uri: "kbs:///default/credential/pull",
    extra_root_certificates: [ca],
    registry_config: {
      "unqualified-search-registries": ["docker.io"],
      registry: [
        {
          ...{ prefix: "docker.io", location: "docker.io", insecure: false, blocked: false },
          mirror: [{ location: "mirror.corp.example" }],
        },
      ],
    },
    image_pull_proxy: { https_proxy: "http://proxy.example.com:3128", no_proxy: ".corp.example" },
  };
  const credentialsUri = "kbs:///default/credential/pull";
  const initdata = (data: Record<string, string>) => ({ algorithm: "sha256" as const, data });
  const kbc = '[kbc]\nname = "cc_kbc"\nurl = "http://kbs:8080"\n';

  test("get the part [image] of cdh.toml, beside what is there; logins stay with the key broker", () => {
    const { data } = withGuestRegistry(initdata({ "policy.rego": "p", "cdh.toml": kbc }), {
      ...registry,
      credentialsUri,
      credentials: "never",
    });
    expect(parse(data["cdh.toml"] ?? "")).toEqual({ kbc: { name: "cc_kbc", url: "http://kbs:8080" }, image });
    expect(data["policy.rego"]).toBe("p");
    expect(JSON.stringify(data)).not.toContain("never");
    expect(cdhImage({})).toBe("");
  });

  test("without a cdh.toml they get one that asks no key broker", () => {
    const { data } = withGuestRegistry(initdata({}), { proxy: { https: "http://p:1" } });
    expect(parse(data["cdh.toml"] ?? "")).toEqual({
      kbc: { name: "offline_fs_kbc", url: "" },
      image: { image_pull_proxy: { https_proxy: "http://p:1" } },
    });
    expect(withGuestRegistry(initdata({}), { credentials: "x" })).toEqual(initdata({}));
  });

  test.each([
    ["logins without a key broker", {}, 'but initdata has no "cdh.toml" that says where the key broker is.'],
    ["two places", { "cdh.toml": `${kbc}[image]\n` }, 'The initdata\'s "cdh.toml" has a table [image] already'],
    ["no TOML", { "cdh.toml": "[kbc" }, 'The initdata\'s "cdh.toml" is not TOML'],
  ])("%s is refused", (_, data, says) => {
    expect(() => withGuestRegistry(initdata(data as Record<string, string>), { ...registry, credentialsUri })).toThrow(
      says,
    );
  });
});
