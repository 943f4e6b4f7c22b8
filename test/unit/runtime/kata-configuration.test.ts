// An independent reader: the product itself reads TOML with smol-toml.
import toml from "@iarna/toml";
import { describe, expect, test } from "vitest";
import { deriveRuntime } from "../../../measure/runtime.ts";
import { flavourNames, pairs } from "../../../runtime/flavours.ts";
import { platforms } from "../../../runtime/platforms.ts";
import { platformNames } from "../../../runtime/spec.ts";
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
    expect(at("3.28.0").kataConfig.content).not.toContain("launch_process_timeout");
    expect(at("3.29.0").kataConfig.content).toContain("launch_process_timeout = 6\n");
  });

  const versions = ["3.17.0", "3.24.0", "3.26.0", "3.27.0", "3.28.0", "3.29.0", "3.30.0", "3.32.0", "4.0.0", "4.1.0"];
  const confidential = supported.filter(
    ({ platform }) => platforms[platform].vmm === "qemu" && !platforms[platform].insecure,
  );

  test.each(confidential)("$platform with $flavour: what binds the guest image is in the file", (pair) => {
    const { measurement: _, ...manifest } = fixtureManifest(pair.flavour);
    const root = "ab".repeat(32);
    const kernelVerityParams = `root_hash=${root},salt=${root},data_blocks=8,data_block_size=4096,hash_block_size=4096`;
    const written = versions.filter((kataVersion) => {
      const guest = { rootfsType: "erofs" as const, kernelParams: "quiet", kernelVerityParams };
      try {
        const { kataConfig } = deriveRuntime({
          platform: pair.platform,
          manifest: { ...manifest, kataVersion, guest },
        });
        expect(parsed(kataConfig.content).hypervisor.qemu.kernel_verity_params).toBe(kernelVerityParams);
        return true;
      } catch (error) {
        expect(error).toMatchObject({ code: "kata-too-old" });
        return false;
      }
    });
    const first = pair.flavour === "kata-rs" ? "4.0.0" : "3.27.0";
    expect(written).toEqual(versions.slice(versions.indexOf(first)));
    // Where the guest sets dm-verity up itself, the root hash is a parameter of its kernel.
    const bound = { rootfsType: "erofs" as const, kernelParams: `roothash=${root}`, kernelVerityParams: "" };
    const derive = (guest: typeof bound) =>
      deriveRuntime({ platform: pair.platform, manifest: { ...manifest, kataVersion: "4.1.0", guest } });
    expect(parsed(derive(bound).kataConfig.content).hypervisor.qemu.kernel_params).toContain(`roothash=${root}`);
    expect(() => derive({ ...bound, kernelParams: "quiet" })).toThrow(
      /^Nothing binds the guest image of payload .* to the launch measurement: /,
    );
  });
});

const parsed = (text: string) =>
  toml.parse(text) as unknown as { hypervisor: { qemu: { kernel_params?: string; kernel_verity_params?: string } } };
