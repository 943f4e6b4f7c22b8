// An independent reader: the product itself reads TOML with smol-toml.
import toml from "@iarna/toml";
import { describe, expect, test } from "vitest";
import { deriveRuntime, measuredRuntime } from "../../../measure/runtime.ts";
import { initdataAnnotation } from "../../../runtime/annotations.ts";
import { flavourNames, pairs } from "../../../runtime/flavours.ts";
import type { GuestImage } from "../../../runtime/manifest.ts";
import { platforms, podCosts } from "../../../runtime/platforms.ts";
import { type DistributionName, platformNames } from "../../../runtime/spec.ts";
import { prepareWorkload } from "../../../workload/template.ts";
import { expectGolden } from "../../golden-file.ts";
import { fixtureManifest } from "./fixtures.ts";

type Extensions = NonNullable<GuestImage["extensions"]>;

const versionsOf = [
  ["contrast-go", "3.31.0"],
  ["kata-go", "3.30.0"],
  ["kata-go", "4.1.0"],
  ["kata-rs", "4.0.0"],
  ["kata-rs", "4.1.0"],
  ["kata-rs", "4.3.0"],
] as const;

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

  test("runtime-rs composes its guests of a base image and extensions, each a table of its own", () => {
    const file = { role: "rootfs-extension", path: "share/kata-containers-coco-extension.img" } as const;
    const { measurement: _, ...manifest } = fixtureManifest("kata-rs");
    const verityParams = manifest.guest?.kernelVerityParams ?? "";
    const composed = (extensions: Extensions = [{ name: "coco", path: file.path, verityParams }]) =>
      deriveRuntime({
        platform: "metal-qemu-snp",
        manifest: {
          ...manifest,
          files: [...manifest.files, { ...file, mode: "0644", size: 1, sha256: "0".repeat(64) }],
          ...(manifest.guest && { guest: { ...manifest.guest, extensions } }),
        },
      });
    const { kataConfig, handler } = composed();
    expect(toml.parse(kataConfig.content)).toMatchObject({
      hypervisor: {
        qemu: {
          guest_extension_images: [
            { name: "coco", path: `/opt/edgeless/${handler}/${file.path}`, verity_params: verityParams },
          ],
        },
      },
      agent: { kata: { launch_process_timeout: 6 } },
    });
    const refused: [Extensions, RegExp][] = [
      [[], /has the file share\/kata-containers-coco-extension\.img, but does not say which extension/],
      [
        [{ name: "coco", path: "share/other", verityParams }],
        /names share\/other as an extension .* but has no such file/,
      ],
      [[{ name: "coco", path: file.path, verityParams: "" }], /^Nothing binds the extension coco of payload/],
    ];
    for (const [extensions, message] of refused) expect(() => composed(extensions)).toThrow(message);
    const go = {
      ...fixtureManifest("kata-go"),
      files: [...manifest.files, { ...file, mode: "0644" as const, size: 1, sha256: "0".repeat(64) }],
    };
    const extensions = [{ name: "coco", path: file.path, verityParams }];
    expect(() =>
      deriveRuntime({
        platform: "metal-qemu-snp",
        manifest: {
          ...go,
          guest: { rootfsType: "ext4", kernelParams: "", kernelVerityParams: verityParams, extensions },
        },
      }),
    ).toThrow(/has extensions of its guest image \(coco\), which only runtime-rs mounts/);
  });

  test("where the kubelet is elsewhere, the Go runtime is told, under another handler", () => {
    const manifest = fixtureManifest("contrast-go");
    const on = (distribution?: DistributionName) =>
      deriveRuntime({ platform: "metal-qemu-snp-gpu", manifest, distribution });
    expect(on("k0s").kataConfig.content).toContain('kubelet_root_dir = "/var/lib/k0s/kubelet"\n');
    expect(on("k0s").kataConfig.content).toContain('"/var/lib/k0s/kubelet/pod-resources/kubelet.sock"');
    expect(on("microk8s").kataConfig.content).toContain('"/var/snap/microk8s/common/var/lib/kubelet"');
    expect(new Set([on().handler, on("k0s").handler, on("microk8s").handler]).size).toBe(3);
    for (const other of ["containerd", "aks", "k3s", "rke2"] as const) expect(on(other)).toEqual(on());
    const rs = { platform: "metal-qemu-snp", manifest: fixtureManifest("kata-rs") } as const;
    expect(deriveRuntime({ ...rs, distribution: "k0s" })).toEqual(deriveRuntime(rs));
  });

  test("a guest is as large as its Kata makes it, and as the pod's price and its reference values say", () => {
    for (const [fixture, kataVersion] of versionsOf) {
      for (const platform of ["metal-qemu-snp", "metal-qemu-tdx-gpu"] as const) {
        const { measurement: _, ...manifest } = fixtureManifest(fixture);
        const { spec, beyondLimits } = measuredRuntime({ platform, manifest: { ...manifest, kataVersion } });
        const { qemu } = parsed(spec.kataConfig.content).hypervisor as { qemu: Record<string, number> };
        const { default_vcpus = 0, default_memory = 0, overhead_vcpus, overhead_memory } = qemu;
        const costs = podCosts(platforms[platform], manifest.flavour);
        expect(costs.overheadMiB - costs.guestMemoryMiB).toBeGreaterThanOrEqual(170);
        for (const limit of [0.01, 0.5, 0.6, 0.601, 1, 1.5, 1.6, 2, 7.25, 7.6]) {
          // Go: virtcontainers' static sizing; runtime-rs: initial_size.rs, in single precision.
          const vcpus =
            overhead_vcpus === undefined
              ? Math.ceil(default_vcpus + limit)
              : Math.ceil(Math.max(1, Math.fround(Math.fround(overhead_vcpus) + Math.fround(limit))));
          const template = {
            spec: {
              containers: [
                {
                  name: "a",
                  image: `a@sha256:${"0".repeat(64)}`,
                  resources: { limits: { cpu: String(limit), memory: "64Mi" } },
                },
              ],
            },
          };
          const facts = { pullsImages: true, registryLogins: "initdata", emptyDirs: "memory" } as const;
          const guest = {
            ...facts,
            ...{ renewsProjected: true, podAnnotations: [initdataAnnotation], mostVcpus: 240 },
          };
          const options = { handler: "h", guest, beyondLimits };
          const initdata = { algorithm: "sha256" as const, data: { "policy.rego": "package agent_policy" } };
          expect(prepareWorkload(template, { ...options, initdata }).size.vcpus, `${fixture} ${limit}`).toBe(vcpus);
        }
        expect([overhead_memory ?? default_memory, beyondLimits.memoryMiB]).toEqual([
          ...[costs.guestMemoryMiB, costs.guestMemoryMiB],
        ]);
      }
    }
  });

  const versions = ["3.17.0", "3.26.0", "3.29.0", "3.30.0", "3.32.0", "4.0.0", "4.1.0", "4.3.0", "4.4.0"];
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
    const first = pair.flavour === "kata-rs" ? "4.0.0" : "3.30.0";
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
