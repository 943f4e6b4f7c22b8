import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { describe, expect, test } from "vitest";
import * as z from "zod";
import { flavourNames } from "../../runtime/flavours.ts";
import { kataFacts } from "../../runtime/kata-versions.ts";
import { platformNames } from "../../runtime/spec.ts";

/* Renovate's own expressions, on the files that they are for: it changes what they match, and nothing says when they do not. */

const clone = resolve(import.meta.dirname, "../..");
const text = (file: string) => readFileSync(join(clone, file), "utf8");
const schema = z.object({
  enabledManagers: z.array(z.string()),
  packageRules: z.array(z.looseObject({ matchPackageNames: z.array(z.string()).optional() })),
  customManagers: z.array(
    z.object({
      customType: z.literal("regex"),
      description: z.string(),
      managerFilePatterns: z.array(z.string()),
      matchStrings: z.array(z.string()),
      depNameTemplate: z.literal("kata-containers/kata-containers"),
      datasourceTemplate: z.literal("github-releases"),
      versioningTemplate: z.string(),
    }),
  ),
});
const renovate = schema.parse(JSON.parse(text("renovate.json")));
const [ofStacks, ofReleases] = renovate.customManagers;

/** "/…/" is a regular expression, as Renovate reads it. */
const takes = (file: string, manager = ofStacks): boolean =>
  manager?.managerFilePatterns.some((pattern) => new RegExp(pattern.slice(1, -1)).test(file)) === true;
const versionsIn = (content: string, manager = ofStacks): (string | undefined)[] =>
  (manager?.matchStrings ?? []).flatMap((expression) =>
    [...content.matchAll(new RegExp(expression, "g"))].map(({ groups }) => groups?.currentValue),
  );

describe("payloads of stacks", () => {
  test("stack files are looked into, the project's own file is not", () => {
    expect(["Pulumi.prod.yaml", "infra/Pulumi.eu-1.yml"].map((file) => takes(file))).toEqual([true, true]);
    expect(["Pulumi.yaml", "docs/Pulumi.md", "values.yaml"].map((file) => takes(file))).toEqual([false, false, false]);
  });

  const upstream = flavourNames.filter((name) => name.startsWith("kata-"));
  test.each(
    platformNames
      .filter((name) => name !== "local" && !name.startsWith("aks-"))
      .flatMap((platform) => upstream.map((flavour) => `${platform}-${flavour}`)),
  )("%s: the name that lock gives its manifest is found", (name) => {
    const stack = `runtimes:\n  - platform: x\n    payload: payloads/${name}-4.1.0.json\n  - payload: "payloads/${name}-4.2.0.json"\n`;
    expect(versionsIn(stack)).toEqual(["4.1.0", "4.2.0"]);
  });

  test("others' payloads and names of one's own are left alone", () => {
    expect(
      versionsIn("payload: payloads/metal-qemu-snp-contrast-go-1.24.0.json\npayload: payloads/ours.json\n"),
    ).toEqual([]);
  });

  test("the documents' own example is one that it finds", () => {
    expect(versionsIn(text("docs/payloads.md"))).not.toEqual([]);
  });
});

test("payloads of the released image are found, each of them", () => {
  expect(takes("tools/dev/release/payloads.json", ofReleases)).toBe(true);
  const pins = z
    .array(z.object({ kataVersion: z.string() }))
    .parse(JSON.parse(text("tools/dev/release/payloads.json")));
  expect(versionsIn(text("tools/dev/release/payloads.json"), ofReleases)).toEqual(
    pins.map(({ kataVersion }) => kataVersion),
  );
  // Whoever takes the release, or the template, gets launch values: the sources of a newer Kata are read first.
  const [ofTemplate = ""] = versionsIn(
    `payload: ${/payloads\/\S+/.exec(text("templates/typescript/Pulumi.yaml"))?.[0]}`,
  );
  const versions = [ofTemplate, ...pins.map(({ kataVersion }) => kataVersion)];
  expect(versions.filter((version) => !kataFacts(version).commandLineKnown)).toEqual([]);
});

test("what CONTRIBUTING holds back is held back, and every manager has files here", () => {
  const ruled = renovate.packageRules.flatMap(({ matchPackageNames = [] }) => matchPackageNames);
  const [, list = ""] = /Some are held back on\n([\s\S]*?)\n- \*\*/.exec(text("CONTRIBUTING.md")) ?? [];
  const held = [...list.matchAll(/^ {2}- `([^`]+)`/gm)].map(([, name]) => name);
  expect(held.length).toBeGreaterThan(2);
  for (const name of held) expect(ruled).toContain(name);
  expect(renovate.enabledManagers).toEqual(["npm", "github-actions", "gomod", "custom.regex"]);
  const modules = readdirSync(join(clone, "tools/programs/modules"), { recursive: true, encoding: "utf8" });
  expect(modules.some((name) => name.endsWith("go.mod"))).toBe(true);
});
