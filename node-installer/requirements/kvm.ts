import { any, device, flag, module, not, readsDigit, vendor } from "./conditions.ts";
import type { CpuFlag, Module, Parameter } from "./host-facts.ts";
import type { Check, Table } from "./table.ts";

const amd = vendor("AuthenticAMD");

const kvmDevice = (
  ours: typeof amd,
  cpuFlag: CpuFlag,
  setting: string,
  kvmModule: Module,
): [missing: Check, off: Check] => [
  {
    code: "kvm-missing",
    wanted: any(not(ours), device("kvm"), not(flag(cpuFlag))),
    problem: "/dev/kvm is missing",
    remedy: `load the module with "modprobe ${kvmModule}" and add it to a file in /etc/modules-load.d`,
  },
  {
    code: "virtualization-off",
    // The device alone says nothing: it may be a file that a container's image made, or a KVM that has no hardware.
    wanted: any(not(ours), flag(cpuFlag)),
    problem: `The CPU does not report ${cpuFlag}`,
    remedy: `enable ${setting} in the BIOS, or, in a virtual machine, nested virtualization in its hypervisor`,
    needsReboot: true,
  },
];

const vmwareVsock = module("vmw_vsock_vmci_transport");

/** What makes all that follows pointless. */
const machine = (vms: string): Table => [
  [
    {
      code: "cpu-unsupported",
      wanted: any(amd, vendor("GenuineIntel")),
      problem: 'This CPU\'s vendor is "{vendor}"',
      remedy: `${vms} need an AMD or Intel CPU`,
    },
  ],
];

/** The same for VMs with a TEE, which no hypervisor gives to its guests. */
const bareMetal: Table = [
  [
    {
      code: "virtual-machine",
      wanted: not(flag("hypervisor")),
      problem: "This node is a virtual machine, and confidential VMs run on hardware only",
      remedy: "take it out of the group",
    },
  ],
  ...machine("confidential VMs"),
];

/** Each table with those checks first, so that one that fails is all that is said. */
export const onMachine = (tee: string, table: Table): Table => [
  ...(tee === "none" ? machine("VMs of this platform") : bareMetal),
  ...table,
];

/** What any VM needs, confidential or not. */
export const kvm: Table = [
  [
    ...kvmDevice(amd, "svm", "SVM Mode", "kvm_amd"),
    ...kvmDevice(vendor("GenuineIntel"), "vmx", "VT-x", "kvm_intel"),
    {
      code: "vsock-taken",
      wanted: any(device("vhost-vsock"), not(vmwareVsock)),
      problem:
        "The module vmw_vsock_vmci_transport has taken vsock, so vhost_vsock cannot load and no VM can talk to its shim",
      remedy: "unload it and blacklist it in a file in /etc/modprobe.d",
    },
    {
      code: "vhost-vsock-missing",
      wanted: any(device("vhost-vsock"), vmwareVsock),
      problem: "/dev/vhost-vsock, over which shim and VM talk, is missing",
      remedy: 'run "modprobe vhost_vsock" and add it to a file in /etc/modules-load.d',
    },
    {
      code: "vhost-net-missing",
      wanted: device("vhost-net"),
      problem: "/dev/vhost-net, which gives VMs their network, is missing",
      remedy: 'run "modprobe vhost_net" and add it to a file in /etc/modules-load.d',
    },
  ],
];

/** A `1` is not as good as a `Y`, because Kata's Go runtime looks for exactly that letter. */
export const digitIsNotEnough = (parameter: Parameter): Check => ({
  code: "parameter-digit",
  severity: "warning",
  wanted: not(readsDigit(parameter)),
  problem: `/sys/module/${parameter.replace(".", "/parameters/")} reads "1" instead of "Y"`,
  remedy: 'Kata\'s Go runtime takes that as "not available". Newer kernels write Y',
});
