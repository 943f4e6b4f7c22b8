import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { engineVersion, pluginVersion } from "../../../../tools/engine/versions.ts";
import { moduleDirectory } from "../../../../tools/programs/pinned.ts";

const clone = join(import.meta.dirname, "..", "..", "..", "..");

describe("versions are those of the SDK packages that package.json pins", () => {
  const packageJson = (...path: string[]) => JSON.parse(readFileSync(join(clone, ...path, "package.json"), "utf8"));
  const { devDependencies, peerDependencies } = packageJson();

  test("the engine, also in its Go module", () => {
    expect(engineVersion).toBe(devDependencies["@pulumi/pulumi"]);
    const module = readFileSync(join(moduleDirectory("pulumi"), "go.mod"), "utf8");
    expect(module).toContain(`github.com/pulumi/pulumi/pkg/v3 v${engineVersion} `);
  });

  test.each(["kubernetes", "command", "azure-native"] as const)("the plugin %s", (provider) => {
    expect(pluginVersion(provider)).toBe(devDependencies[`@pulumi/${provider}`]);
  });

  test("what other programs bring themselves: the version that is tested here, and later ones compatible with it", () => {
    for (const [name, range] of Object.entries(peerDependencies)) expect(range, name).toBe(`^${devDependencies[name]}`);
  });

  test("the policy pack's own dependency", () => {
    const pack = packageJson("review", "policies").dependencies;
    expect(pack).toEqual({ "@pulumi/policy": devDependencies["@pulumi/policy"] });
  });
});
