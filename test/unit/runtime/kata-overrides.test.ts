import { describe, expect, test } from "vitest";
import { kataCommandLine } from "../../../measure/kata-kernel-command-line.ts";
import { launchValues } from "../../../measure/launch-values.ts";
import { measuredRuntime } from "../../../measure/runtime.ts";
import { deriveSpec } from "../../../runtime/derive.ts";
import { platformOf } from "../../../runtime/handler.ts";
import { effectOf } from "../../../runtime/kata-key-effects.ts";
import { keysOf, type Reader, typeOfKey } from "../../../runtime/kata-keys.ts";
import { judgeSettings, type RuntimeSettings } from "../../../runtime/kata-overrides.ts";
import type { Manifest } from "../../../runtime/manifest.ts";
import type { PlatformName } from "../../../runtime/spec.ts";
import { fixtureManifest } from "./fixtures.ts";

const platform: PlatformName = "metal-qemu-snp";
const go: Manifest = { ...fixtureManifest("kata-go"), kataVersion: "4.1.0" };
const rs = fixtureManifest("kata-rs");
const contrast = fixtureManifest("contrast-go");
/** Its launch is measured, and its line known. */
const measured: Manifest = { ...contrast, kataVersion: "3.32.0" };

const judged = (settings: RuntimeSettings, manifest: Manifest = go) => judgeSettings({ platform, manifest }, settings);
const mistakes = (settings: RuntimeSettings, manifest: Manifest = go) =>
  judged(settings, manifest).mistakes.map(({ path, message }) => `${path} ${message}`);
const derived = (settings: RuntimeSettings, manifest: Manifest = go) => {
  const { changes, mistakes } = judged(settings, manifest);
  expect(mistakes).toEqual([]);
  return measuredRuntime({ platform, manifest, changes });
};
const line = (settings: RuntimeSettings, manifest: Manifest = go) =>
  kataCommandLine(
    manifest,
    deriveSpec({ platform, manifest, changes: judged(settings, manifest).changes }).configuration,
  );

const tables = ["hypervisor", "agent", "runtime"] as const;
const readers: Reader[] = ["kata-go", "contrast-go", "kata-rs"];

test("of every key that a Kata knows it is said what it does to guests", () => {
  const unjudged = readers.flatMap((reader) =>
    ["3.30.0", "3.32.0", "4.0.0", "4.1.0"].flatMap((version) =>
      tables.flatMap((table) =>
        keysOf(reader, version, table)
          .filter((key) => effectOf(table, key) === undefined)
          .map((key) => `${table}.${key}`),
      ),
    ),
  );
  expect(unjudged).toEqual([]);
});

test("a key whose value is no plain one can never be set", () => {
  const structured = tables.flatMap((table) =>
    keysOf("kata-rs", "4.1.0", table).filter((key) => typeOfKey("kata-rs", "4.1.0", table, key)?.startsWith("table")),
  );
  expect(structured).toContain("factory");
  for (const table of tables)
    for (const key of structured) expect(effectOf(table, key)?.effect ?? "decided").toBe("decided");
});

describe("what is set is in the file, and in the handler", () => {
  const kata = { hypervisor: { block_device_aio: "native" }, agent: { dial_timeout: 300 } };

  test("another content is another handler; the launch stays where nothing is measured", () => {
    const [plain, set] = [derived({}, measured), derived({ kata }, measured)];
    expect(set.spec.handler).not.toBe(plain.spec.handler);
    expect(set.spec.handler).toMatch(/^contrast-cc-metal-qemu-snp-[0-9a-f]{8}$/);
    expect(set.spec.kataConfig.content).toMatch(/^block_device_aio = "native"$/m);
    expect(set.spec.kataConfig.content).toMatch(/^dial_timeout = 300$/m);
    expect(launchValues(set)).toEqual(launchValues(plain));
    expect(launchValues(set)).toHaveProperty("EPYC-Milan launch digest, 2 vCPUs");
    expect(line({ kata }, measured)).toBe(line({}, measured));
  });

  test("nothing set is nothing changed", () => {
    expect(derived({ kata: {}, debug: false, acknowledgedWeakenings: [] }).spec).toEqual(derived({}).spec);
  });

  test("a measured one is in the line that is predicted", () => {
    const set = { kata: { agent: { launch_process_timeout: 30 }, hypervisor: { disable_guest_selinux: false } } };
    expect(line(set, measured)).toBe(
      line({}, measured)
        ?.replace("agent.launch_process_timeout=6", "agent.launch_process_timeout=30")
        .replace("selinux=0", "selinux=1"),
    );
    expect(launchValues(derived(set, measured))).not.toEqual(launchValues(derived({}, measured)));
    expect(judged(set).settings[0]).toBe(
      "hypervisor.disable_guest_selinux is false: it changes the guest's kernel command line. Verifiers see it in what a launch measures.",
    );
  });

  test("one whose effect on the line is not known makes it unknown, and not wrong", () => {
    expect(line({ kata: { hypervisor: { enable_iommu: true } } })).toBeUndefined();
    const values = launchValues(derived({ kata: { hypervisor: { enable_iommu: true } } }, measured));
    expect(Object.values(values).join()).toContain("not predictable");
  });

  test("a line that was given to the lock command is not taken for another one", () => {
    const given = `console=hvc0 roothash=${"ef".repeat(32)} agent.hotplug_timeout=9`;
    const { measurement, guest } = contrast;
    if (measurement === undefined || guest === undefined) throw new Error("the fixture has both");
    const unknown: Manifest = {
      ...{ ...contrast, kataVersion: "4.0.1" },
      ...{
        measurement: { ...measurement, commandLine: given },
        guest: { ...guest, kernelParams: `roothash=${"ef".repeat(32)}` },
      },
    };
    const inputs = (settings: RuntimeSettings) => derived(settings, unknown).inputs?.commandLine;
    const set = (text: string) => ({ kata: { hypervisor: { kernel_params: text } } });
    expect(inputs({})).toBe(given);
    expect(inputs({ kata: { agent: { dial_timeout: 1 } } })).toBe(given);
    expect(inputs(set("agent.hotplug_timeout=9"))).toBe(given);
    expect(inputs(set("agent.hotplug_timeout=8"))).toBeUndefined();
    expect(inputs({ kata: { agent: { launch_process_timeout: 7 } } })).toBeUndefined();
  });

  test("kernel parameters are added to the payload's, which keep their place", () => {
    const set = { kata: { hypervisor: { kernel_params: "agent.image_pull_timeout=3600 cgroup_no_v1=all" } } };
    expect(line(set)).toBe(`${line({})} agent.image_pull_timeout=3600 cgroup_no_v1=all`);
    expect(derived(set, contrast).spec.kataConfig.content).toContain(
      `${contrast.guest?.kernelParams} agent.image_pull_timeout=3600 cgroup_no_v1=all`,
    );
  });

  test("a line that the kernel would cut off is refused", () => {
    const { measurement } = measured;
    if (measurement?.kernel === undefined) throw new Error("the fixture has it");
    const kernel = { ...measurement.kernel, commandLineLimit: 1_000 };
    const limited: Manifest = { ...measured, measurement: { ...measurement, kernel } };
    const parameters = "agent.hotplug_timeout=60 ".repeat(20).trim();
    const { changes } = judged({ kata: { hypervisor: { kernel_params: parameters } } }, limited);
    expect(() => measuredRuntime({ platform, manifest: limited, changes })).toThrow(
      /With these settings the kernel command line of payload fixture-contrast-go has \d+ bytes, but its kernel takes 1000/,
    );
  });

  test("a proxy for upstream's guests is on the measured line", () => {
    const guestProxy = { https: "http://proxy.example.com:3128", noProxy: ".example.com,10.0.0.0/8" };
    expect(line({ guestProxy })).toBe(
      `${line({})} agent.https_proxy=http://proxy.example.com:3128 agent.no_proxy=.example.com,10.0.0.0/8`,
    );
    expect(mistakes({ guestProxy }, contrast)).toEqual([
      "guestProxy is for guests of upstream Kata: Contrast's do not read it. Set the stack's registry.guest.proxy, which its image puller reads.",
    ]);
  });
});

describe("debugging", () => {
  test.each([
    ["kata-go", go],
    ["kata-rs", rs],
    ["contrast-go", contrast],
  ])("%s logs everything on the host, is measured as before, and says so in its name", (_, manifest) => {
    const [plain, debug] = [derived({}, manifest), derived({ debug: true }, manifest)];
    expect(debug.spec.handler).toMatch(/^contrast-cc-metal-qemu-snp-debug-[0-9a-f]{8}$/);
    expect(platformOf(debug.spec.handler)).toBe(platform);
    expect(debug.spec.kataConfig.content).toMatch(/^\[runtime\]\n(.*\n)*enable_debug = true$/m);
    expect(debug.spec.kataConfig.content.match(/enable_debug/g)).toHaveLength(1);
    expect(line({ debug: true }, manifest)).toBe(line({}, manifest));
    expect(launchValues(debug)).toEqual(launchValues(plain));
  });

  test("what changes what is measured is no part of it: it weakens, has to be said, and the name says insecure", () => {
    const kata = { hypervisor: { enable_debug: true } };
    expect(mistakes({ kata, debug: true })).toEqual([
      "kata.hypervisor.enable_debug weakens the guest: the guest's start is logged to the host in detail, and its kernel command line is another. Remove it, or say that you know: \"acknowledgedWeakenings: [hypervisor.enable_debug]\". The handler's name then says insecure.",
    ]);
    const known = { kata, debug: true, acknowledgedWeakenings: ["hypervisor.enable_debug"] };
    const { spec } = derived(known);
    expect(spec.handler).toMatch(/^contrast-insecure-metal-qemu-snp-debug-[0-9a-f]{8}$/);
    expect(platformOf(spec.handler)).toBe(platform);
    expect(judged(known).weakened).toEqual([
      "hypervisor.enable_debug is true: the guest's start is logged to the host in detail, and its kernel command line is another.",
    ]);
    expect(line(known)).toContain(" debug systemd.show_status=true ");
  });
});

describe("wrong use", () => {
  const hypervisor = (keys: Record<string, string | number | boolean | string[]>): RuntimeSettings => ({
    kata: { hypervisor: keys },
  });
  type Refused = [what: string, settings: RuntimeSettings, says: string[], manifest?: Manifest];
  const cases: Refused[] = [
    [
      "a typing error",
      { kata: { agent: { dial_timout: 30 } } },
      ["kata.agent.dial_timout is no key that Kata 4.1.0 (kata-go) knows in [agent]: did you mean dial_timeout?"],
    ],
    [
      "something that is no key at all",
      { kata: { runtime: { xyzzy: 1 } } },
      ["kata.runtime.xyzzy is no key that Kata 4.1.0 (kata-go) knows in [runtime]."],
    ],
    [
      "a key of another table",
      { kata: { agent: { create_container_timeout: 30 } } },
      [
        "kata.agent.create_container_timeout is no key that Kata 4.1.0 (kata-go) knows in [agent]: it is one of [runtime].",
      ],
    ],
    [
      "a key of another version",
      { kata: { agent: { visible_cdi_devices: true } } },
      ["kata.agent.visible_cdi_devices is no key that Kata 3.30.0 (kata-go) knows in [agent]: Kata 3.32.0 does."],
      { ...go, kataVersion: "3.30.0" },
    ],
    [
      "a key of the other runtime",
      { kata: { agent: { reconnect_timeout_ms: 30 } } },
      ["kata.agent.reconnect_timeout_ms is no key that Kata 4.1.0 (kata-go) knows in [agent]: kata-rs does."],
    ],
    [
      "values of other types",
      {
        kata: {
          hypervisor: { default_memory: "1Gi", default_vcpus: 0, enable_mem_prealloc: "yes", block_device_aio: true },
          agent: { dial_timeout: 1.5 },
        },
      },
      [
        'kata.hypervisor.default_memory is "1Gi", expected a number, 0 or more.',
        "kata.hypervisor.default_vcpus is 0, expected more than 0.",
        'kata.hypervisor.enable_mem_prealloc is "yes", expected true or false.',
        "kata.hypervisor.block_device_aio is true, expected a text.",
        "kata.agent.dial_timeout is 1.5, expected a whole number.",
      ],
    ],
    [
      "more than Kata can hold",
      { kata: { hypervisor: { default_memory: 4_294_967_296 }, agent: { dial_timeout: 9_999_999_999 } } },
      ["kata.hypervisor.default_memory is 4294967296", "kata.agent.dial_timeout is 9999999999"].map(
        (said) => `${said}, expected at most 4294967295: Kata takes no more as it is written.`,
      ),
    ],
    [
      "memory that the Go runtime would replace by 2 GiB",
      hypervisor({ default_memory: 255 }),
      ["kata.hypervisor.default_memory is 255, expected at least 256: Kata takes no less as it is written."],
    ],
    [
      "memory that runtime-rs refuses",
      hypervisor({ default_memory: 63 }),
      ["kata.hypervisor.default_memory is 63, expected at least 64: Kata takes no less as it is written."],
      fixtureManifest("kata-rs"),
    ],
    [
      "a time that the Go runtime's nanoseconds cannot hold",
      { kata: { runtime: { create_container_timeout: 9_223_372_037 } } },
      [
        "kata.runtime.create_container_timeout is 9223372037, expected at most 9223372036: Kata takes no more as it is written.",
      ],
    ],
    [
      "no time to wait",
      { kata: { agent: { dial_timeout: 0 }, runtime: { create_container_timeout: 0 } } },
      [
        "kata.agent.dial_timeout is 0, expected more than 0.",
        "kata.runtime.create_container_timeout is 0, expected more than 0.",
      ],
    ],
    [
      "no time to wait for runtime-rs",
      { kata: { agent: { dial_timeout_ms: 0, reconnect_timeout_ms: 0 } } },
      [
        "kata.agent.dial_timeout_ms is 0, expected more than 0.",
        "kata.agent.reconnect_timeout_ms is 0, expected more than 0.",
      ],
      fixtureManifest("kata-rs"),
    ],
    ...["4.2.0", "4.3.0", "5.0.0"].map(
      (kataVersion): Refused => [
        `what verifiers see or weakens, of Kata ${kataVersion}, which nobody here has looked at`,
        {
          kata: {
            hypervisor: { default_memory: 1024, kernel_params: "quiet", block_device_aio: "native" },
            agent: { debug_console_enabled: true },
          },
          acknowledgedWeakenings: ["agent.debug_console_enabled"],
          guestProxy: { https: "http://p.example:3128" },
        },
        [
          ...[
            "kata.hypervisor.default_memory",
            "kata.agent.debug_console_enabled",
            "kata.hypervisor.kernel_params",
            "guestProxy",
          ].map(
            (path) =>
              `${path} cannot be set: Kata ${kataVersion} is newer than 4.1.0, the newest whose sources were read here, and nobody has looked at what it does to guests there. Remove it, or lock Kata 4.1.0 or an older one.`,
          ),
        ],
        { ...go, kataVersion },
      ],
    ),
    [
      "no word of Kata's",
      hypervisor({ block_device_aio: "fast" }),
      ['kata.hypervisor.block_device_aio is "fast". Allowed: threads, native, io_uring.'],
    ],
    [
      "a word that only the other runtime takes",
      hypervisor({ block_device_driver: "virtio-blk", cold_plug_vfio: "bridge-port" }),
      [
        'kata.hypervisor.block_device_driver is "virtio-blk". Allowed: virtio-scsi, virtio-blk-pci.',
        'kata.hypervisor.cold_plug_vfio is "bridge-port". Allowed: no-port, root-port.',
      ],
      { ...rs, kataVersion: "4.1.0" },
    ],
    [
      "what platform, payload or another setting decide",
      {
        kata: {
          hypervisor: { confidential_guest: false, image: "/x", enable_annotations: [".*"] },
          runtime: { enable_debug: true, static_sandbox_resource_mgmt: false },
        },
      },
      [
        "kata.hypervisor.confidential_guest cannot be set here: the platform decides it.",
        "kata.hypervisor.image cannot be set here: the payload decides it; lock another one.",
        "kata.hypervisor.enable_annotations cannot be set here: no annotation reaches Kata but those that containerd's entry names, too.",
        "kata.runtime.enable_debug cannot be set here: the runtime's setting debug decides it.",
        "kata.runtime.static_sandbox_resource_mgmt cannot be set here: it decides how many vCPUs guests have, which is measured.",
      ],
    ],
    [
      "parameters that replace what the payload boots",
      hypervisor({
        kernel_params:
          "dm-mod.create= dm_mod.create= root=/dev/vdb init=/bin/sh systemd.verity=0 agent.config_file=/x agent.https_proxy=http://x",
      }),
      [
        ...[
          "dm-mod.create=",
          "dm_mod.create=",
          "root=/dev/vdb",
          "init=/bin/sh",
          "systemd.verity=0",
          "agent.config_file=/x",
        ].map(
          (word) =>
            `kata.hypervisor.kernel_params ${JSON.stringify(word)} cannot be set: the payload decides what its guests boot, and ${word.split("=")[0]} would replace that. Lock it with other --kernel-params.`,
        ),
        'kata.hypervisor.kernel_params "agent.https_proxy=http://x" is not set here: the runtime\'s setting guestProxy is.',
      ],
    ],
    [
      "parameters in quotes",
      hypervisor({ kernel_params: 'agent.hotplug_timeout="1' }),
      [
        'kata.hypervisor.kernel_params "agent.hotplug_timeout=\\"1" is no kernel parameter: expected names and values without quotes, separated by one blank each.',
      ],
    ],
    [
      "a parameter of which nothing is known",
      hypervisor({ kernel_params: "agent.devmode=true" }),
      [
        'kata.hypervisor.kernel_params weakens the guest: of "agent.devmode" it is not known what it does to guests. Remove it, or say that you know: "acknowledgedWeakenings: [hypervisor.kernel_params:agent.devmode]". The handler\'s name then says insecure.',
      ],
    ],
    [
      "acknowledged what is not there",
      { acknowledgedWeakenings: ["agent.enable_debug"] },
      ['acknowledgedWeakenings[0] "agent.enable_debug" is nothing that is set and weakens the guest. Remove it.'],
    ],
    [
      "acknowledged with a typing error",
      { ...hypervisor({ shared_fs: "virtio-fs" }), acknowledgedWeakenings: ["hypervisor.shard_fs"] },
      [
        "kata.hypervisor.shared_fs weakens the guest: directories of the host are the guest's, and what is written there is the host's. Remove it, or say that you know: \"acknowledgedWeakenings: [hypervisor.shared_fs]\". The handler's name then says insecure.",
        'acknowledgedWeakenings[0] "hypervisor.shard_fs" is nothing that is set and weakens the guest: did you mean hypervisor.shared_fs?',
      ],
    ],
  ];
  test.each(cases)("%s", (_, settings, says, manifest) => {
    expect(mistakes(settings, manifest)).toEqual(says);
    expect(judged(settings, manifest).changes).toBeUndefined();
  });

  test("a value that does not weaken needs no word", () => {
    expect(mistakes(hypervisor({ shared_fs: "none", disable_block_device_use: true }))).toEqual([]);
  });

  test("where nothing reads it, it is refused", () => {
    const of = (name: PlatformName, manifest: Manifest) =>
      judgeSettings({ platform: name, manifest }, { kata: {}, debug: true }).mistakes.map(({ message }) => message);
    expect(of("local", fixtureManifest("local"))).toEqual([
      "cannot be set: the platform local runs no Kata that could read it. Remove it.",
      "cannot be set: the platform local runs no Kata that could read it. Remove it.",
    ]);
    expect(of("aks-clh-snp", fixtureManifest("contrast-aks"))[0]).toContain("Microsoft's build of Kata");
  });
});
