import { describe, expect, test } from "vitest";
import { checkHost, gatherHostFacts } from "../../../../node-installer/requirements/check-host.ts";
import { cpuGeneration } from "../../../../node-installer/requirements/cpu-generations.ts";
import { goDuration } from "../../../../node-installer/requirements/kubelet-configuration.ts";
import { platforms } from "../../../../runtime/platforms.ts";
import type { HostRequirements } from "../../../../runtime/spec.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";
import { each, type Files, hosts, milan, snp } from "./hosts.ts";

const gather = (files: Files) => {
  const host = new MemoryHost();
  each(files, { file: (path, content) => host.put(path, content), link: (path, target) => host.link(path, target) });
  return gatherHostFacts(host, ["/etc/containerd", "/opt"]);
};
const codes = async (files: Files, requirements: HostRequirements) =>
  checkHost(await gather(files), [requirements]).map(({ code, severity, needsReboot }) =>
    [severity === "warning" ? "warning:" : "", code, needsReboot ? " (reboot)" : ""].join(""),
  );

describe("hosts", () => {
  test.each(hosts)("%s", async (_, files, requirements, expected) => {
    expect(await codes(files, requirements)).toEqual(expected);
  });
});

describe("GPUs", () => {
  const device = "/sys/bus/pci/devices/0000:21:00.0";
  const files: Files = {
    ...milan,
    [`${device}/vendor`]: "0x10de\n",
    [`${device}/class`]: "0x030200\n",
    "/dev/vfio/vfio": "",
    "/sys/bus/pci/drivers/vfio-pci/module/version": "1",
    "/sys/bus/pci/drivers/nvidia/module/version": "1",
  };
  const check = async (driver: string | undefined, rest: Files = {}) => {
    const link = driver && `-> ../../drivers/${driver}`;
    const facts = await gather({ ...files, ...rest, [`${device}/driver`]: link });
    return checkHost(facts, [platforms["metal-qemu-snp-gpu"].host]).map(({ code }) => code);
  };
  test("bound to vfio-pci", async () => expect(await check("vfio-pci")).toEqual([]));
  test("taken by NVIDIA's driver", async () => expect(await check("nvidia")).toEqual(["gpu-not-bound"]));
  test("without a driver", async () => expect(await check(undefined)).toEqual(["gpu-not-bound"]));
  test("two of them, each with its own sentence", async () => {
    const other = device.replace("21", "22");
    const second = { [`${other}/vendor`]: "0x10de\n", [`${other}/class`]: "0x030200\n" };
    expect(await check("nvidia", second)).toEqual(["gpu-not-bound", "gpu-not-bound"]);
  });
  test("none", async () =>
    expect(await check(undefined, { [`${device}/class`]: "0x020000\n" })).toEqual(["gpu-missing"]));
});

test("every sentence names the value that is wrong and says what to do", async () => {
  const facts = await gather({
    ...milan,
    "/proc/sys/fs/inotify/max_user_instances": "128\n",
    "/dev/sev": undefined,
    "/var/lib/kubelet/config.yaml": undefined,
  });
  expect(checkHost(facts, [snp]).map(({ message }) => message)).toEqual([
    '/dev/sev, which starts SEV-SNP VMs, is missing: run "modprobe ccp" and add it to a file in /etc/modules-load.d.',
    "fs.inotify.max_user_instances is 128, which a few VMs exhaust: set it to 8192 in a file in /etc/sysctl.d.",
    "kubelet's runtimeRequestTimeout is 120 s (kubelet's default, as none of its usual files sets another), but images are pulled inside the VM while kubelet waits: set it to 5m or more, or pods with large images never start.",
  ]);
});

test.each([
  ["metal-qemu-snp", "confidential VMs need an AMD or Intel CPU"],
  ["metal-qemu-insecure", "VMs of this platform need an AMD or Intel CPU"],
] as const)("no sentence calls the VMs of %s what they are not", async (platform, remedy) => {
  const facts = await gather({ ...milan, "/proc/cpuinfo": "processor: 0\nvendor_id: HygonGenuine\n" });
  expect(checkHost(facts, [platforms[platform].host]).map(({ message }) => message)).toEqual([
    `This CPU's vendor is "HygonGenuine": ${remedy}.`,
  ]);
});

test("several runtimes on one node: each finding once", async () => {
  const facts = await gather({ ...milan, "/dev/sev": undefined });
  expect(checkHost(facts, [snp, snp]).map(({ code }) => code)).toEqual(["sev-device-missing"]);
});

test.each([
  ["AuthenticAMD", 25, 17, "EPYC 9004 (Genoa)"],
  ["AuthenticAMD", 25, 160, "EPYC 97x4 or 8004 (Bergamo, Siena)"],
  ["AuthenticAMD", 26, 2, "EPYC 9005 (Turin)"],
  ["AuthenticAMD", 26, 17, "EPYC 9005 (Turin)"],
  ["AuthenticAMD", 23, 49, "EPYC 7001 or 7002 (Naples, Rome)"],
  ["GenuineIntel", 6, 207, "5th generation Xeon (Emerald Rapids)"],
  ["GenuineIntel", 6, 173, "Xeon 6 (Granite Rapids)"],
  ["GenuineIntel", 25, 1, undefined],
])("%s family %i model %i", (vendor, family, model, name) => {
  expect(cpuGeneration({ vendor, family, model })?.name).toBe(name);
});

test.each([
  ["5m0s", 300],
  ["1.5h", 5400],
  ["120s", 120],
  ["1500ms", 1.5],
  ["5", undefined],
  ["", undefined],
  ["5m x", undefined],
])("Go's duration %j", (text, seconds) => {
  expect(goDuration(text)).toBe(seconds);
});
