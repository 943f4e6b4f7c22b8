import type * as k8s from "@pulumi/kubernetes/types/input.js";
import type * as pulumi from "@pulumi/pulumi";
import { distributions } from "../runtime/distributions.ts";
import { platforms } from "../runtime/platforms.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { InstallSpec, RuntimeSpec } from "../runtime/spec.ts";
import { snapshotterSecurity } from "./manifests/pod-security.ts";

/** Arguments and environment of a snapshotter's program, by its name. Source: Contrast's DaemonSets of 2024 and 2025. */
const programs: Record<string, { arguments: (paths: Paths) => string[]; env: Record<string, string> }> = {
  tardev: {
    arguments: ({ data, socket, containerd }) => [data, socket, containerd],
    env: { RUST_LOG: "tardev_snapshotter=info" },
  },
};

interface Paths {
  /** Where it keeps layers: the same path in the container and on the node, because containerd is told that path. */
  data: string;
  /** Where it listens, and where containerd does, as the container sees them. */
  socket: string;
  containerd: string;
}

/**
 * A container per runtime that needs a snapshotter on the host, from the runtime's own payload: each handler has a
 * snapshotter of its own, so that an upgrade of one does not touch the pods of another. They run in the installer's pod,
 * because they are needed exactly where and as long as the handler is.
 */
export function snapshotterContainers(spec: InstallSpec, image: pulumi.Input<string>): k8s.core.v1.Container[] {
  return spec.runtimes.flatMap((runtime) => {
    const { proxyPlugin } = runtime.containerd;
    return proxyPlugin ? [container(spec, runtime, proxyPlugin, image)] : [];
  });
}

/** Volumes that those containers need beyond the pod's own. */
export const snapshotterVolumes = (spec: InstallSpec): k8s.core.v1.Volume[] =>
  spec.runtimes.some(({ containerd }) => containerd.proxyPlugin)
    ? [{ name: volume, hostPath: { path: dataDirectory(spec), type: "Directory" } }]
    : [];

const volume = "containerd-data";

const dataDirectory = ({ distribution }: InstallSpec): string =>
  distributions[distribution.name].dataDirectories[0] ?? "/var/lib/containerd";

function container(
  spec: InstallSpec,
  { handler, payload, files, platform }: RuntimeSpec,
  { name, address }: { name: string; address: string },
  image: pulumi.Input<string>,
): k8s.core.v1.Container {
  const kind = platforms[platform].snapshotter;
  const program = kind === undefined ? undefined : programs[kind];
  const file = files.find(({ role }) => role === "snapshotter");
  if (!program || !file) {
    throw new Refusal(
      "unknown-snapshotter",
      `The payload ${payload} of ${platform} has the snapshotter ${kind}, which cannot be started. Known: ${Object.keys(programs).join(", ")}.`,
    );
  }
  const data = `${dataDirectory(spec)}/io.containerd.snapshotter.v1.${name}`;
  const containerd = `/host${spec.distribution.socket ?? distributions[spec.distribution.name].socket}`;
  return {
    // A container's name has 63 characters at most; the handler's hash tells them apart.
    name: `${kind}-${handler.slice(-8)}`,
    image,
    command: [
      `/payloads/${payload}/${file.path}`,
      ...program.arguments({ data, socket: `/host${address}`, containerd }),
    ],
    env: Object.entries(program.env).map(([key, value]) => ({ name: key, value })),
    resources: { requests: { cpu: "20m", memory: "800Mi" } },
    securityContext: snapshotterSecurity.container,
    volumeMounts: [
      { name: "host", mountPath: "/host" },
      { name: volume, mountPath: dataDirectory(spec) },
    ],
  };
}
