import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { engineVersion, pluginVersion } from "../../../../tools/engine/versions.ts";
import { moduleDirectory } from "../../../../tools/programs/pinned.ts";

const clone = join(import.meta.dirname, "..", "..", "..", "..");

describe("versions are those of the SDK packages that package.json pins", () => {
  const { dependencies } = JSON.parse(readFileSync(join(clone, "package.json"), "utf8"));

  test("the engine, also in its Go module", () => {
    expect(engineVersion).toBe(dependencies["@pulumi/pulumi"]);
    const module = readFileSync(join(moduleDirectory("pulumi"), "go.mod"), "utf8");
    expect(module).toContain(`github.com/pulumi/pulumi/pkg/v3 v${engineVersion} `);
  });

  test.each(["kubernetes", "command", "azure-native"] as const)("the plugin %s", (provider) => {
    expect(pluginVersion(provider)).toBe(dependencies[`@pulumi/${provider}`]);
  });
});
