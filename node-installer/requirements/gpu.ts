import { any, anyGpu, anyIommu, device, not } from "./conditions.ts";
import { error, type Finding } from "./finding.ts";
import type { HostFacts } from "./host-facts.ts";
import type { Table } from "./table.ts";

/** What a host with a GPU for VMs has before it is anybody's node. */
export const gpu: Table = [
  [
    {
      code: "iommu-off",
      wanted: anyIommu,
      problem: "The IOMMU is off, but a VM can only get a GPU through it",
      remedy: "enable it in the BIOS and remove iommu=off from the kernel's command line",
      needsReboot: true,
    },
    {
      code: "gpu-missing",
      wanted: anyGpu,
      problem: "This node has no NVIDIA GPU on its PCI bus",
      remedy: "take it out of the group of a -gpu platform",
    },
    {
      code: "vfio-missing",
      wanted: any(not(anyGpu), device("vfio/vfio")),
      problem: "/dev/vfio/vfio is missing",
      remedy: 'run "modprobe vfio_pci" and add it to a file in /etc/modules-load.d',
    },
  ],
];

/** Asked of nodes only: a GPU operator binds the devices of a host that has joined its cluster, not before. */
export const unboundGpus = ({ gpus }: HostFacts): Finding[] =>
  gpus
    .filter(({ driver }) => driver !== "vfio-pci")
    .map(({ address, driver }) =>
      error(
        "gpu-not-bound",
        `The GPU ${address} is bound to the driver "${driver}": bind it and every device of its IOMMU group to vfio-pci.`,
      ),
    );
