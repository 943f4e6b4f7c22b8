import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ZodError } from "zod";
import { launchValues } from "../../../measure/launch-values.ts";
import { measuredInputs } from "../../../measure/reference-value-changes.ts";
import { deriveRuntime, measuredRuntime } from "../../../measure/runtime.ts";
import { canonicalJson } from "../../../runtime/canonical.ts";
import { renderSpec } from "../../../runtime/derive.ts";
import { type Manifest, manifestSchema } from "../../../runtime/manifest.ts";
import { platforms } from "../../../runtime/platforms.ts";
import { Refusal } from "../../../runtime/refusal.ts";
import { handlerName, type PlatformName, runtimeSpec } from "../../../runtime/spec.ts";
import { isAtLeast } from "../../../runtime/version.ts";
import { expectGolden } from "../../golden-file.ts";
import { fixtureManifest } from "./fixtures.ts";

const derive = (platform: PlatformName, fixture: string, change: Partial<Manifest> = {}) =>
  deriveRuntime({ platform, manifest: { ...fixtureManifest(fixture), ...change } });

const examples: [PlatformName, string][] = [
  ["aks-clh-snp", "contrast-aks"],
  ["metal-qemu-snp", "contrast-go"],
  ["metal-qemu-snp", "kata-go"],
  ["metal-qemu-snp", "kata-rs"],
  ["metal-qemu-tdx", "contrast-go"],
  ["metal-qemu-snp-gpu", "contrast-go"],
  ["metal-qemu-tdx-gpu", "contrast-go"],
  ["metal-qemu-insecure", "kata-go"],
  ["local", "local"],
];

const specOf = (runtimes: ReturnType<typeof derive>[], name: "containerd" | "k3s" = "containerd") =>
  renderSpec({ group: "workers", distribution: { name }, atOnce: 1, verifySandbox: false, runtimes });

describe("handlers", () => {
  test("no release changes a handler by accident", () => {
    const names = examples.map(([platform, fixture]) => `${fixture}: ${derive(platform, fixture).handler}\n`);
    expectGolden("handlers.txt", names.join(""));
  });

  test.each(examples)("%s with %s is a complete runtime under its own name", (platform, fixture) => {
    const runtime = derive(platform, fixture);
    expect(runtimeSpec.parse(runtime)).toEqual(runtime);
    expect(handlerName.parse(runtime.handler)).toMatch(
      platforms[platform].insecure ? /^contrast-insecure-(local|metal-qemu-insecure)-/ : /^contrast-cc-/,
    );
    expect(JSON.stringify(runtime)).not.toContain("<handler>");
    expect(runtime.containerd.runtimePath).toBe(`/opt/edgeless/${runtime.handler}/bin/containerd-shim-contrast-cc-v2`);
  });

  test("every property of every file counts", () => {
    // Without measurement: one of other files would be refused.
    const { files } = fixtureManifest("kata-go");
    const before = derive("metal-qemu-snp", "kata-go").handler;
    fc.assert(
      fc.property(fc.nat(files.length - 1), fc.constantFrom("sha256", "size", "mode", "path"), (index, key) => {
        const changed = files.map((file, i) => {
          if (i !== index) return file;
          if (key === "sha256") return { ...file, sha256: "0".repeat(64) };
          if (key === "size") return { ...file, size: file.size + 1 };
          if (key === "mode") return { ...file, mode: file.mode === "0755" ? ("0644" as const) : ("0755" as const) };
          return { ...file, path: `${file.path}.new` };
        });
        expect(derive("metal-qemu-snp", "kata-go", { files: changed }).handler).not.toBe(before);
      }),
    );
  });

  test("the payload's name, its origin and the order of its files do not count", () => {
    const manifest = fixtureManifest("contrast-go");
    const same = derive("metal-qemu-snp", "contrast-go", {
      name: "another",
      source: { kind: "node", reference: "elsewhere" },
      files: manifest.files.toReversed(),
    });
    expect(same.handler).toBe(derive("metal-qemu-snp", "contrast-go").handler);
  });
});

describe("containerd entries", () => {
  test("local gives containerd no options", () => {
    expect(derive("local", "local").containerd).not.toHaveProperty("options");
    expect(derive("local", "local").kataConfig.content).toContain("[hypervisor.qemu]");
  });

  test("aks names the handler's own snapshotter", () => {
    const { handler, containerd } = derive("aks-clh-snp", "contrast-aks");
    expect(containerd.snapshotter).toBe(`tardev-${handler}`);
    expect(containerd.proxyPlugin).toEqual({
      name: `tardev-${handler}`,
      address: `/run/containerd/tardev-snapshotter-${handler}.sock`,
    });
  });

  test("metal runs no snapshotter on the host, and GPUs are announced by CDI annotations", () => {
    expect(derive("metal-qemu-snp", "contrast-go").containerd).not.toHaveProperty("snapshotter");
    expect(derive("metal-qemu-tdx-gpu", "contrast-go").containerd.podAnnotations).toEqual([
      "cdi.k8s.io/*",
      "io.katacontainers.config.hypervisor.cc_init_data",
    ]);
  });
});

describe("what a pair cannot do is refused", () => {
  const withoutGuest = fixtureManifest("kata-go");
  delete withoutGuest.guest;
  const {
    files,
    guest = { rootfsType: "erofs", kernelParams: "", kernelVerityParams: "" },
    measurement,
  } = fixtureManifest("contrast-go");
  const cases: [string, () => unknown, string][] = [
    [
      "an unknown flavour",
      () => derive("local", "local", { flavour: "kata" }),
      'The flavour "kata" is unknown. Known flavours: contrast-go, kata-go, kata-rs, none.',
    ],
    [
      "upstream Kata on AKS",
      () => derive("aks-clh-snp", "kata-go"),
      "Flavour kata-go cannot serve the platform aks-clh-snp: upstream Kata supports neither IGVM files nor SNP guests on Cloud Hypervisor; only Microsoft's fork does. Use a payload of flavour contrast-go.",
    ],
    [
      "runtime-rs on AKS",
      () => derive("aks-clh-snp", "kata-rs"),
      "Flavour kata-rs cannot serve the platform aks-clh-snp: upstream Kata supports neither IGVM files",
    ],
    [
      "a Kata that is too old",
      () => derive("metal-qemu-snp", "kata-go", { kataVersion: "3.8.0" }),
      "Kata 3.8.0 is too old for metal-qemu-snp with flavour kata-go: 3.30.0 or later is needed. Lock a newer payload.",
    ],
    [
      "a payload without firmware",
      () => derive("metal-qemu-snp", "contrast-go", { files: files.filter(({ role }) => role !== "firmware") }),
      "Payload fixture-contrast-go (contrast-go, Kata 3.31.0) has no file of role firmware, which metal-qemu-snp needs. Lock a payload made for metal-qemu-snp.",
    ],
    [
      "two VMMs",
      () =>
        derive("metal-qemu-snp", "contrast-go", {
          files: [...files, { ...files[0], role: "vmm", path: "bin/other" } as (typeof files)[number]],
        }),
      "Payload fixture-contrast-go (contrast-go, Kata 3.31.0) has 2 files of role vmm (bin/other, bin/qemu-system-x86_64); one is expected.",
    ],
    [
      "an unknown guest image",
      () => deriveRuntime({ platform: "metal-qemu-snp", manifest: withoutGuest }),
      'Payload fixture-kata-go (kata-go, Kata 4.1.0) does not say how its guest image boots (manifest key "guest"), which metal-qemu-snp needs. Lock it again.',
    ],
    [
      "image and initrd upstream",
      () => derive("metal-qemu-snp", "contrast-go", { flavour: "kata-go" }),
      "Payload fixture-contrast-go (kata-go, Kata 3.31.0) holds an image and an initrd; upstream Kata boots only one of them. Lock it without the initrd.",
    ],
    [
      "parts of two builds",
      () =>
        derive("metal-qemu-snp", "contrast-go", { guest: { ...guest, kernelParams: `roothash=${"ab".repeat(32)}` } }),
      `The parts of payload fixture-contrast-go do not belong together. The kernel command line (roothash) says root hash ${"ab".repeat(32)}, but the rootfs image has ${"ef".repeat(32)}. Lock it again with parts of the same build.`,
    ],
    [
      "another command line than what Kata makes of the file",
      () => derive("metal-qemu-snp", "contrast-go", { measurement: { ...measurement, commandLine: "quiet" } }),
      'The measured kernel command line is not the one that Kata 3.31.0 (contrast-go) passes: parameter 1 is measured as "quiet", but passed as "tsc=reliable".',
    ],
    ...(["firmware", "kernel", "initrd", "rootfs"] as const).map((role): [string, () => unknown, string] => [
      `a ${role} that its measurement was not collected from`,
      () =>
        derive("metal-qemu-snp", "contrast-go", {
          files: files.map((file) => (file.role === role ? { ...file, sha256: "9".repeat(64) } : file)),
        }),
      `has the SHA-256 ${"9".repeat(64)}, but the measurement's inputs were collected from one with ${files.find((file) => file.role === role)?.sha256}. Lock it again`,
    ]),
    [
      "an initrd that is measured but not there",
      () => derive("metal-qemu-snp", "contrast-go", { files: files.filter(({ role }) => role !== "initrd") }),
      "The measurement has inputs of role initrd, but the payload has no such file.",
    ],
    [
      "a manifest from before it said what its measurement was collected from",
      () => {
        const { firmware: _, rootfs: { sha256: __, ...rootfs } = {}, ...old } = measurement ?? {};
        return derive("metal-qemu-snp", "contrast-go", { measurement: { ...old, rootfs } });
      },
      "The manifest does not say from which firmware, rootfs its measurement's inputs were collected, as those of earlier versions did not. Lock it again",
    ],
    [
      "one runtime twice",
      () => specOf([derive("local", "local"), derive("local", "local")]),
      `Group workers lists the runtime ${derive("local", "local").handler} (platform local, payload fixture-local) twice. Remove one.`,
    ],
  ];
  test.each(cases)("%s", (_name, act, message) => expect(act).toThrow(message));
});

describe("install spec", () => {
  test("is as reviewed", () => {
    expectGolden(
      "specs/metal-snp.json",
      specOf([derive("metal-qemu-snp", "contrast-go"), derive("metal-qemu-snp", "kata-rs")]).json,
    );
  });

  test("does not depend on the order of runtimes", () => {
    const [one, other] = [derive("metal-qemu-snp", "contrast-go"), derive("metal-qemu-snp", "kata-go")];
    expect(specOf([one, other])).toEqual(specOf([other, one]));
  });

  test("says that pending changes may be loaded only if they may: specs of other groups stay as they are", () => {
    const input = { group: "workers", distribution: { name: "containerd" as const }, atOnce: 1, verifySandbox: false };
    const made = (loadPendingChanges?: boolean) => renderSpec({ ...input, loadPendingChanges, runtimes: [] });
    expect(made(true).spec.loadPendingChanges).toBe(true);
    expect(made(false).json).toBe(made().json);
    expect(made().json).not.toContain("loadPendingChanges");
  });

  test("names a startup taint only where there is one", () => {
    const input = { group: "workers", distribution: { name: "containerd" as const }, atOnce: 1, verifySandbox: false };
    const made = (startupTaint?: string) => renderSpec({ ...input, startupTaint, runtimes: [] });
    expect(made("example.com/x").spec.startupTaint).toBe("example.com/x");
    expect(made().json).not.toContain("startupTaint");
  });

  test("always starts a sandbox where nothing can be lost", () => {
    expect(specOf([derive("local", "local")]).spec.verifySandbox).toBe(true);
    expect(specOf([derive("metal-qemu-snp", "contrast-go")]).spec.verifySandbox).toBe(false);
  });
});

describe("no leaf of a manifest is dropped without a word", () => {
  /** What describes the payload, but says nothing about what is installed or measured. */
  const descriptive = /^(source\.reference|measurement\.(kernel\.(version|efiStub)|initrd\.format))$/;
  /** The tree of the guest's image, where the command line names its root hash, which covers it. */
  const tree = /^measurement\.rootfs\.verity\.(dataBlockSize|hashBlockSize|dataBlocks|salt|superblock)$/;
  /** Of another TEE, or (twoPass) of another VMM. */
  const elsewhere = {
    snp: /^measurement\.(initrd\.sha384|tdx\.mrtd\..*)$/,
    tdx: /^measurement\.(snp\..*|tdx\.mrtd\.twoPass)$/,
    none: /^measurement\./,
  };

  const leavesOf = (value: unknown, path: string[] = []): [string[], unknown][] =>
    typeof value === "object" && value !== null
      ? Object.entries(value).flatMap(([key, each]) => leavesOf(each, [...path, key]))
      : [[path, value]];
  const edited = (value: unknown) => {
    if (typeof value === "number") return value + 4096;
    if (typeof value === "boolean") return !value;
    const text = String(value);
    return /^[0-9a-f]{32,}$/.test(text) ? `${text.startsWith("0") ? "1" : "0"}${text.slice(1)}` : `${text}x`;
  };
  const seen = (platform: PlatformName, manifest: Manifest) => {
    const { tee } = platforms[platform];
    const runtime = measuredRuntime({ platform, manifest });
    const { inputs } = runtime;
    const { name, flavour, kataVersion } = manifest;
    return JSON.stringify([
      deriveRuntime({ platform, manifest }).handler,
      [name, flavour, kataVersion],
      launchValues(runtime),
      inputs && measuredInputs(inputs, tee),
    ]);
  };

  test.each(examples)("%s with %s", (platform, fixture) => {
    const manifest = fixtureManifest(fixture);
    const before = seen(platform, manifest);
    const dropped = leavesOf(manifest).flatMap(([path, value]) => {
      const copy = structuredClone(manifest) as unknown as Record<string, unknown>;
      const parent = path.slice(0, -1).reduce((tree, key) => tree[key] as Record<string, unknown>, copy);
      parent[path.at(-1) ?? ""] = edited(value);
      try {
        return seen(platform, manifestSchema.parse(copy)) === before ? [path.join(".")] : [];
      } catch (error) {
        if (error instanceof Refusal || error instanceof ZodError) return [];
        throw error;
      }
    });
    const { tee } = platforms[platform];
    expect(dropped.filter((path) => ![descriptive, tree, elsewhere[tee]].some((all) => all.test(path)))).toEqual([]);
  });
});

test("canonical JSON is the same for equal values in any order of keys", () => {
  const shuffled = fc
    .dictionary(fc.string(), fc.jsonValue())
    .chain((record) =>
      fc
        .shuffledSubarray(Object.entries(record), { minLength: Object.keys(record).length })
        .map((entries) => ({ record, entries })),
    );
  fc.assert(
    fc.property(shuffled, ({ record, entries }) => {
      const other = Object.fromEntries(entries);
      expect(canonicalJson(other)).toBe(canonicalJson(record));
    }),
  );
});

test.each([
  ["3.32.0", "3.24.0", true],
  ["3.24.0", "3.24.0", true],
  ["3.9.0", "3.24.0", false],
  ["4.0.0", "3.24.0", true],
  ["3.2.0.azl2", "3.2.0", true],
  ["none", "3.2.0", false],
  ["", "3.2.0", false],
  ["v3.248.0", "3.248.0", true],
  ["3.260.0-dev.1", "3.259.5", true],
])("%s is at least %s: %s", (version, minimum, expected) => expect(isAtLeast(version, minimum)).toBe(expected));
