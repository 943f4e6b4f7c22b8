import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import * as z from "zod";
import { flavourNames, pairs } from "../../../runtime/flavours.ts";
import { hypervisorOf } from "../../../runtime/kata-configuration.ts";
import { keysOf, type TableName, typeOfKey } from "../../../runtime/kata-keys.ts";
import { isUnread, kataFacts, kataReleases, newestRead } from "../../../runtime/kata-versions.ts";
import { platformNames } from "../../../runtime/spec.ts";
import { isAtLeast } from "../../../runtime/version.ts";
import { guests } from "../measure/kata-settings.ts";
import { configurationFor } from "../measure/pod-vm.ts";

const root = join(import.meta.dirname, "../../..");
const table = z.enum(["hypervisor", "agent", "runtime"]);
const flavour = z.enum(["kata-go", "kata-rs", "contrast-go"]);
const facts = z
  .array(z.tuple([flavour, z.string(), z.string(), table, z.string(), z.unknown()]))
  .parse(JSON.parse(readFileSync(join(root, "test/vectors/kata/templates.json"), "utf8")))
  .flatMap(([flavour, versions, platforms, table, key, value]) =>
    versions
      .split(" ")
      .flatMap((version) =>
        platformNames
          .filter((platform) => platforms.split(" ").includes(platform))
          .map((platform) => ({ flavour, version, platform, table, key, value })),
      ),
  );
const templates = [
  ...new Map(
    facts.map(({ flavour, version, platform }) => [
      `${flavour} ${version} ${platform}`,
      { flavour, version, platform },
    ]),
  ).values(),
];
type Template = (typeof templates)[number];

/** What the template says, by table and key. */
const said = (template: Template) =>
  new Map(
    facts
      .filter(
        (fact) =>
          fact.flavour === template.flavour && fact.version === template.version && fact.platform === template.platform,
      )
      .map(({ table, key, value }) => [`${table}.${key}`, value]),
  );

function rendered({ flavour, version, platform }: Template): Map<string, unknown> {
  const configuration = configurationFor({ flavour, kataVersion: version }, guests[0], platform);
  const tables: [TableName, Record<string, unknown>][] = [
    ["hypervisor", hypervisorOf(configuration)],
    ["agent", configuration.agent.kata],
    ["runtime", configuration.runtime],
  ];
  return new Map(
    tables.flatMap(([name, keys]) => Object.entries(keys).map(([key, value]) => [`${name}.${key}`, value] as const)),
  );
}

/** The keys whose difference has a reason in the documentation. */
const documented = new Set(
  readFileSync(join(root, "docs/kata.md"), "utf8")
    .split("## What is different on purpose")[1]
    ?.split("\n")
    .filter((line) => /^\| `/.test(line))
    .flatMap((line) => [...(line.split("|")[1] ?? "").matchAll(/`(\w+)`/g)].map(([, key]) => key)),
);

/** To all of Kata's readers, a key that is not written is empty, but for those whose default is named in the documentation. */
const isZero = (value: unknown) =>
  value === false || value === 0 || value === "" || (Array.isArray(value) && value.length === 0);
const nameOf = (key: string) => key.replace(/^\w+\./, "");
const differing = new Set<string>();

describe.each(templates)("$flavour $version on $platform", (template) => {
  const theirs = said(template);
  const ours = rendered(template);

  test("no key is rendered that this version does not know", () => {
    const unknown = [...ours.keys()].filter((key) => !theirs.has(key) && !documented.has(nameOf(key)));
    expect(unknown).toEqual([]);
    for (const [key, value] of ours) {
      const [name, ...rest] = key.split(".");
      const type = typeOfKey(template.flavour, template.version, table.parse(name), rest.join("."));
      const found = Array.isArray(value) ? "texts" : { string: "text", boolean: "flag" }[typeof value as string];
      expect(found ?? "number", key).toBe(type);
    }
  });

  test("every value that its own template has is rendered, or its absence has a reason", () => {
    const different = [...theirs].filter(([key, value]) => {
      const own = ours.get(key);
      return own === undefined ? !isZero(value) : JSON.stringify(own) !== JSON.stringify(value);
    });
    for (const [key] of different) differing.add(nameOf(key));
    expect(different.filter(([key]) => !documented.has(nameOf(key)))).toEqual([]);
  });
});

test("no reason is left for a difference that is none", () => {
  for (const template of templates) {
    const theirs = said(template);
    for (const key of rendered(template).keys()) if (!theirs.has(key)) differing.add(nameOf(key));
  }
  expect([...documented].filter((key) => key !== undefined && !differing.has(key))).toEqual([]);
});

/** Upstream sets them, but its own runtime-rs reads none of them. */
const unreadByRs = ["firmware_volume", "kubelet_root_dir", "use_legacy_serial", "vhost_user_reconnect_timeout_sec"];

test("the table of keys knows those of every template", () => {
  const unknown = facts.filter(({ flavour, version, table, key }) => !keysOf(flavour, version, table).includes(key));
  expect([...new Set(unknown.map(({ flavour, key }) => `${flavour} ${key}`))].sort()).toEqual(
    unreadByRs.map((key) => `kata-rs ${key}`),
  );
});

describe("versions", () => {
  test("a release says what it rests on, and comes after the one before it", () => {
    for (const [index, { version, source, sha256 }] of kataReleases.entries()) {
      expect(source).not.toBe("");
      if (index > 0) expect(isAtLeast(version, kataReleases[index - 1]?.version ?? "")).toBe(true);
      for (const digest of Object.values(sha256)) expect(digest).toMatch(/^[0-9a-f]{64}$/);
    }
  });

  test.each([
    ["3.30.0", false],
    ["3.31.1", false],
    ["4.1.0", false],
    ["4.1.1", true],
    ["4.2.0", true],
    ["4.3.0", true],
    ["4.4.0-rc0", true],
    ["5.0.0", true],
  ])("whether nobody has looked at %s: %s", (version, unread) => {
    expect(isUnread(version)).toBe(unread);
    if (unread) expect(kataFacts(version)).toEqual({ ...kataFacts(newestRead), commandLineKnown: false });
  });

  test("releases are read in their order", () => {
    const firstUnread = kataReleases.findIndex(({ read }) => !read);
    expect(kataReleases.slice(firstUnread).filter(({ read }) => read)).toEqual([]);
  });

  test("every pair begins with a version that is in the table", () => {
    for (const flavour of flavourNames)
      for (const platform of platformNames) {
        const pair = pairs[flavour][platform];
        if (pair.supported && pair.from !== "" && platform !== "aks-clh-snp")
          expect(kataReleases.map(({ version }) => version)).toContain(pair.from);
      }
  });
});
