import toml from "@iarna/toml";
import { describe, expect, test } from "vitest";
import { flavourNames, pairs } from "../../../node-installer/runtime/flavours.ts";
import { deriveRuntime } from "../../../node-installer/runtime/render.ts";
import { platformNames } from "../../../node-installer/runtime/spec.ts";
import { expectGolden } from "../../golden-file.ts";
import { fixtureManifest } from "./fixtures.ts";

const fixtureOf = (platform: string, flavour: string) =>
  platform === "aks-clh-snp" ? "contrast-aks" : platform === "local" ? "local" : flavour;

const supported = platformNames.flatMap((platform) =>
  flavourNames.filter((flavour) => pairs[flavour][platform].supported).map((flavour) => ({ platform, flavour })),
);

const configurationOf = (platform: (typeof platformNames)[number], fixture: string) =>
  deriveRuntime({ platform, manifest: fixtureManifest(fixture) }).kataConfig.content;

describe("Kata configuration", () => {
  test.each(supported)("$platform with $flavour is as reviewed", ({ platform, flavour }) => {
    const { kataConfig } = deriveRuntime({ platform, manifest: fixtureManifest(fixtureOf(platform, flavour)) });
    expectGolden(`kata/${platform}.${flavour}.toml`, kataConfig.content);
  });

  test.each(supported)(
    "$platform with $flavour is TOML with the three tables that Kata expects",
    ({ platform, flavour }) => {
      const parsed = toml.parse(configurationOf(platform, fixtureOf(platform, flavour)));
      expect(Object.keys(parsed)).toEqual(["hypervisor", "agent", "runtime"]);
    },
  );

  test("upstream flavours get no key that only Contrast's patches know", () => {
    for (const fixture of ["kata-go", "kata-rs"]) {
      const text = configurationOf("metal-qemu-snp", fixture);
      expect(text).not.toContain("_Milan");
      expect(text).not.toContain("initrd");
    }
  });

  test("runtime-rs gets its own spelling of timeouts and guest pull", () => {
    const text = configurationOf("metal-qemu-tdx", "kata-rs");
    expect(text).toContain('experimental = ["force_guest_pull"]');
    expect(text).toContain("reconnect_timeout_ms = 120000");
    expect(text).not.toMatch(/^(dial_timeout|experimental_force_guest_pull) /m);
  });

  test("a key that came with a later Kata is left out for earlier ones", () => {
    const manifest = fixtureManifest("kata-go");
    const at = (kataVersion: string) =>
      deriveRuntime({ platform: "metal-qemu-snp", manifest: { ...manifest, kataVersion } });
    expect(at("3.28.0").kataConfig.content).not.toContain("kernel_verity_params");
    expect(at("3.29.0").kataConfig.content).toContain("kernel_verity_params");
  });
});
