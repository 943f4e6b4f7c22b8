import type { HandlerEntry } from "../../../../node-installer/containerd/entry.ts";

/** An entry as a platform renders it, with a snapshotter of its own if wanted. */
export function entryOf(platform: string, digits: string, withSnapshotter = false): HandlerEntry {
  const handler = `contrast-cc-${platform}-${digits}`;
  return {
    handler,
    entry: {
      runtimeType: "io.containerd.contrast-cc.v2",
      runtimePath: `/opt/edgeless/${handler}/bin/containerd-shim-contrast-cc-v2`,
      podAnnotations: ["io.katacontainers.config.hypervisor.cc_init_data"],
      privilegedWithoutHostDevices: true,
      options: { ConfigPath: `/opt/edgeless/${handler}/etc/configuration.toml` },
      ...(withSnapshotter
        ? {
            snapshotter: `tardev-${handler}`,
            proxyPlugin: { name: `tardev-${handler}`, address: `/run/containerd/tardev-snapshotter-${handler}.sock` },
          }
        : {}),
    },
  };
}

export const snp = entryOf("metal-qemu-snp", "0123abcd");
export const tdx = entryOf("metal-qemu-tdx", "4567cdef");
export const aks = entryOf("aks-clh-snp", "89abcdef", true);
