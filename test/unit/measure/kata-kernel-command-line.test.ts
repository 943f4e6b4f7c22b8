// An independent reader: the product itself reads TOML with smol-toml.
import toml from "@iarna/toml";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  kataCommandLine,
  kataVerityTable,
  vcpuPlaceholder,
  withVcpus,
} from "../../../measure/kata-kernel-command-line.ts";
import { referenceValues } from "../../../measure/reference-values.ts";
import { deriveRuntime, measuredRuntime } from "../../../measure/runtime.ts";
import { flavourNames, pairs } from "../../../runtime/flavours.ts";
import { type KataConfiguration, kataConfigurationText } from "../../../runtime/kata-configuration.ts";
import { platforms } from "../../../runtime/platforms.ts";
import { platformNames } from "../../../runtime/spec.ts";
import { fixtureManifest } from "../runtime/fixtures.ts";
import { guests, keys, settings, withSettings } from "./kata-settings.ts";
import { configurationFor, contrast, contrastGuest, passedLine, podVm } from "./pod-vm.ts";

const metal = platformNames.filter((platform) => platforms[platform].vmm === "qemu" && !platforms[platform].insecure);
const versions = ["3.29.0", "3.30.0", "3.31.0", "3.32.0", "4.0.0", "4.1.0", "4.2.0", "4.3.0", "4.4.0"];
const builds = flavourNames.flatMap((flavour) =>
  metal
    .filter((platform) => pairs[flavour][platform].supported)
    .flatMap((platform) => versions.map((kataVersion) => ({ platform, flavour, kataVersion }))),
);
const upstream = { flavour: "kata-go", kataVersion: "4.1.0" };
const parsed = (text: string) => toml.parse(text) as unknown as KataConfiguration;

test.each(builds)("$platform, $flavour $kataVersion: the line is that of the printed file", (build) => {
  for (const guest of guests) {
    const configuration = configurationFor(build, guest, build.platform);
    const file = parsed(kataConfigurationText(configuration));
    expect(file).toEqual(configuration);
    expect(kataCommandLine(build, file)).toEqual(kataCommandLine(build, configuration));
  }
});

const sourcesRead = ["3.30.0", "3.31.0", "3.32.0", "4.0.0", "4.1.0"];
const predicted: Record<string, string[]> = {
  "contrast-go": sourcesRead,
  "kata-go": sourcesRead,
  "kata-rs": ["4.0.0", "4.1.0"],
};

test.each(builds)("$platform, $flavour $kataVersion: the line is known or said to be unknown", (build) => {
  const { flavour, kataVersion, platform } = build;
  for (const guest of guests) {
    const line = kataCommandLine(build, configurationFor(build, guest, platform));
    expect(line !== undefined).toBe(predicted[flavour]?.includes(kataVersion));
    if (line === undefined) continue;
    const file = kataConfigurationText(configurationFor(build, guest, platform));
    const [, timeout] = /^launch_process_timeout = (\d+)$/m.exec(file) ?? [];
    expect(/ agent\.launch_process_timeout=(\d+)( |$)/.exec(line)?.[1]).toBe(timeout);
    expect(line.includes(` nr_cpus=${vcpuPlaceholder} `)).toBe(
      flavour === "kata-go" && kataVersion.startsWith("3.") && kataVersion !== "3.32.0",
    );
  }
});

test.each(["5.0.0", "4.1.1", "3.33.0-alpha0", "4.1.0-rc0", "3.32.0.azl1", "none", ""])(
  "nothing is known of Kata %j",
  (kataVersion) => {
    for (const flavour of ["kata-go", "contrast-go"])
      expect(passedLine({ flavour, kataVersion }, contrastGuest("00"))).toBeUndefined();
  },
);

describe("whatever the file says", () => {
  const [guest] = guests;
  const configuration = configurationFor(upstream, guest);

  test("the line follows from its text", () => {
    fc.assert(
      fc.property(settings, fc.constantFrom(...guests), fc.constantFrom(...builds), (changed, guest, build) => {
        const other = withSettings(configurationFor(build, guest, build.platform), changed);
        expect(kataCommandLine(build, parsed(kataConfigurationText(other)))).toEqual(kataCommandLine(build, other));
      }),
      { numRuns: 300 },
    );
  });

  /** Keys of the random settings that decide nothing. */
  const harmless = ["shared_fs", "default_vcpus", "cold_plug_vfio", "dial_timeout", "vfio_mode"];
  const changes = keys.flatMap(({ table, key, values }) => values.map((value) => ({ table, key, value })));
  test.each(changes)("$table $key = $value changes the line, or it is not known", ({ table, key, value }) => {
    const was = (
      table === "hypervisor" && "qemu" in configuration.hypervisor
        ? configuration.hypervisor.qemu
        : table === "agent"
          ? configuration.agent.kata
          : configuration.runtime
    ) as Record<string, unknown>;
    const zero = value === undefined || value === false || value === 0 || value === "";
    const same = was[key] === value || (zero && (was[key] === undefined || was[key] === ""));
    const line = kataCommandLine(upstream, withSettings(configuration, [{ table, key, value }]));
    // Of the runtime alone: it says what the host logs.
    const isLog = table === "runtime" && key === "enable_debug";
    if (same || isLog || harmless.includes(key)) expect(line).toBe(kataCommandLine(upstream, configuration));
    else expect(line).not.toBe(kataCommandLine(upstream, configuration));
  });

  test.each([
    ["kata-go", "virtio-blk-pci"],
    ["contrast-go", "virtio-blk-pci"],
    ["kata-rs", "virtio-blk"],
  ])("%s starts no guest with block_device_driver = %s: none is predicted", (flavour, value) => {
    const build = { ...upstream, flavour };
    const change = { table: "hypervisor", key: "block_device_driver", value } as const;
    expect(kataCommandLine(build, withSettings(configurationFor(build, guest), [change]))).toBeUndefined();
  });

  test.each(["hypervisor", "agent", "runtime"] as const)(
    "a key in %s that the model does not know is no guess",
    (table) => {
      const other = withSettings(configuration, [{ table, key: "new_key", value: "x" }]);
      expect(kataCommandLine(upstream, other)).toBeUndefined();
    },
  );
});

test("a preview's values are those of the configuration that it renders", () => {
  for (const platform of ["metal-qemu-snp", "metal-qemu-tdx-gpu"] as const) {
    const { measurement: inputs, ...manifest } = { ...fixtureManifest("contrast-go"), kataVersion: "3.31.0" };
    const runtime = { platform, manifest: { ...manifest, measurement: inputs } };
    const line = kataCommandLine(manifest, parsed(deriveRuntime(runtime).kataConfig.content));
    expect(line).toContain(" agent.launch_process_timeout=6 init=/nix/store/fixture/init ");
    expect(measuredRuntime(runtime).inputs).toEqual({ ...inputs, commandLine: line });
  }
  expect(measuredRuntime({ platform: "metal-qemu-snp", manifest: fixtureManifest("kata-go") }).inputs).toBeUndefined();
});

test("Contrast's command line is the prefix that its package records, then the configuration's parameters", () => {
  const prefix =
    "tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 root=/dev/vda1 rootflags=ro rootfstype=erofs console=hvc0 console=hvc1 quiet systemd.show_status=false panic=1 selinux=0 systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none";
  const guest = contrastGuest("00");
  for (const platform of metal)
    expect(kataCommandLine(contrast, configurationFor(contrast, guest, platform))).toBe(
      `${prefix} agent.launch_process_timeout=6 ${guest.kernelParams}`,
    );
});

describe("runtime-rs", () => {
  const build = { flavour: "kata-rs", kataVersion: "4.1.0" };
  const [{ kernelVerityParams }] = guests;
  const verityParams = kernelVerityParams.replaceAll("ab", "cd");
  const coco = { name: "coco", path: "share/kata-containers-coco-extension.img", verityParams };
  const guest = {
    rootfsType: "ext4" as const,
    kernelParams: "cgroup_no_v1=all x= systemd.unified_cgroup_hierarchy=1",
    kernelVerityParams,
    extensions: [coco],
  };
  const begin =
    "reboot=k panic=1 systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket";
  const root = `${kataVerityTable(kernelVerityParams)} root=/dev/dm-0 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4`;

  test("the base image, what the agent is told, the parameters, then the extensions of the image", () => {
    expect(passedLine(build, guest)).toBe(
      `${begin} ${root} agent.cdh_api_timeout=50 agent.launch_process_timeout=6 cgroup_no_v1=all x systemd.unified_cgroup_hierarchy=1 selinux=0 kata.extension.coco.verity_params=${verityParams} console=hvc0`,
    );
    const gpu = { ...coco, name: "gpu", path: "share/kata-containers-nvidia-gpu-extension.img" };
    const configuration = configurationFor(build, { ...guest, extensions: [gpu, coco] }, "metal-qemu-tdx-gpu");
    expect(kataCommandLine(build, configuration)).toContain(
      ` agent.launch_process_timeout=15 cgroup_no_v1=all x systemd.unified_cgroup_hierarchy=1 selinux=0 kata.extension.gpu.verity_params=${verityParams} kata.extension.coco.verity_params=${verityParams} console=hvc0`,
    );
  });

  test.each(["3.32.0", "4.2.0", "4.1.0-rc0"])("nothing is known of %s", (kataVersion) => {
    expect(passedLine({ ...build, kataVersion }, guest)).toBeUndefined();
  });

  test("what it refuses or calls otherwise is not predicted", () => {
    for (const kernelParams of ["=", "quiet =x"]) expect(passedLine(build, { ...guest, kernelParams })).toBeUndefined();
    const configuration = configurationFor(build, guest);
    for (const change of [
      { table: "hypervisor", key: "vm_rootfs_driver", value: "virtio-pmem" },
      { table: "hypervisor", key: "guest_extension_images", value: "coco" },
      { table: "runtime", key: "hypervisor_name", value: "dragonball" },
      // Keys of Go's runtime: with the first, runtime-rs takes no file.
      { table: "agent", key: "dial_timeout", value: 90 },
      { table: "runtime", key: "kubelet_root_dir", value: "/var/lib/kubelet" },
    ] as const)
      expect(kataCommandLine(build, withSettings(configuration, [change])), change.key).toBeUndefined();
  });

  test.each([
    [0, ""],
    [999, " agent.cdh_api_timeout=0"],
    [1500, " agent.cdh_api_timeout=1"],
  ])("of %i ms it tells the agent the whole seconds", (value, told) => {
    const change = { table: "agent", key: "cdh_api_timeout_ms", value } as const;
    expect(kataCommandLine(build, withSettings(configurationFor(build, guest), [change]))).toContain(
      ` rootfstype=ext4${told} agent.launch_process_timeout=`,
    );
  });

  test("its own defaults are in the line, whether the file has them or not", () => {
    const without = withSettings(configurationFor(build, guest), [
      { table: "agent", key: "cdh_api_timeout_ms", value: undefined },
    ]);
    expect(kataCommandLine(build, without)).toBe(passedLine(build, guest));
  });
});

test("Kata passes on kernel_params as it parsed them", () => {
  const passed = (kernelParams: string) =>
    passedLine(contrast, { ...contrastGuest("00"), kernelParams })?.split(" agent.launch_process_timeout=6")[1];
  expect(passed("")).toBe("");
  expect(passed(' quiet  a="b  c"\n x= "d  e=f" = k== ')).toBe(' quiet a="b  c" x "d  e=f" k==');
  // It refuses a value without a key, so there is no guest.
  expect(passed("quiet =g")).toBeUndefined();
});

test("Kata copies root hash and salt as they are written", () => {
  const [, capitals] = guests;
  expect(kataVerityTable(capitals?.kernelVerityParams ?? "")).toContain(
    ` sha256 ${"AB".repeat(32)} ${"AB".repeat(32)}"`,
  );
  expect(() => kataVerityTable(`root_hash= ${"ab".repeat(32)},salt=ab`)).toThrow(
    /has root_hash= ab.*, expected 64 hex/,
  );
});

/** The command line of a running guest of upstream Kata and the RTMR2 in the quote that Intel's hardware signed for it. */
const quoted = {
  verity:
    "root_hash=768cd7e848f6cb7eb4f59467b26ee5c5e45ece570cb96a5c952d97dbc89bb150,salt=63f8dacc786bd19f307be8668c7792a8fe07818df4aae55b63e76c4931d35c76,data_blocks=96512,data_block_size=4096,hash_block_size=4096",
  commandLine:
    'tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 dm-mod.create="dm-verity,,,ro,0 772096 verity 1 /dev/vda1 /dev/vda2 4096 4096 96512 0 sha256 768cd7e848f6cb7eb4f59467b26ee5c5e45ece570cb96a5c952d97dbc89bb150 63f8dacc786bd19f307be8668c7792a8fe07818df4aae55b63e76c4931d35c76" root=/dev/dm-0 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4 console=hvc0 console=hvc1 quiet systemd.show_status=false panic=1 nr_cpus=1 selinux=0 systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket scsi_mod.scan=none agent.launch_process_timeout=6 cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1',
  rtmr2: "b595f9f179d8b699d1420000d36c1fba82e9853545e719caa6ddbb82fa2041a23b4459876af4a253a1c20c5956529b9a",
};

test("upstream Kata's command line and RTMR2 are those of a TDX quote, and differ by vCPU count", () => {
  const guest = {
    rootfsType: "ext4" as const,
    kernelParams: "cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1",
    kernelVerityParams: quoted.verity,
  };
  const build = { flavour: "kata-go", kataVersion: "3.30.0" };
  const commandLine = kataCommandLine(build, configurationFor(build, guest, "metal-qemu-tdx")) ?? "";
  expect(withVcpus(commandLine, 1)).toBe(quoted.commandLine);
  const { initrd: _, ...inputs } = podVm().inputs;
  const { tdx } = referenceValues({ ...inputs, commandLine }, { tee: "tdx", vcpus: [1, 2] });
  expect(tdx.map((row) => [row.vcpus, row.rtmrs[2] === quoted.rtmr2])).toEqual([
    [1, true],
    [2, false],
  ]);
  // For SNP, too, a row of the table is what the command line with that count gives.
  const { snp } = referenceValues({ ...inputs, commandLine }, { tee: "snp", vcpus: [1, 3] });
  for (const row of snp) {
    const fixed = { ...inputs, commandLine: withVcpus(commandLine, row.vcpus) };
    expect(referenceValues(fixed, { tee: "snp", vcpus: [row.vcpus] }).snp).toEqual([row]);
  }
});
