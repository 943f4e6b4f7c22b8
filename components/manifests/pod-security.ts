/**
 * What the installer's pod may do on its node, as plain objects for the pod template. `reasons` says why the installer
 * needs each permission, and why it does without those that one would expect.
 *
 * Root with the host's files and systemd's socket amounts to root on the host, whatever is dropped here: dropping the rest
 * limits accidents. The security boundary is who may write to the namespace, and the image's digest.
 */
export const podSecurity = {
  pod: {
    hostPID: true,
    hostNetwork: false,
    hostIPC: false,
    securityContext: {
      runAsUser: 0,
      runAsGroup: 0,
      seccompProfile: { type: "RuntimeDefault" },
    },
  },
  container: {
    privileged: false,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"], add: ["CHOWN", "DAC_OVERRIDE", "SYS_CHROOT"] },
    seLinuxOptions: { type: "spc_t" },
    appArmorProfile: { type: "Unconfined" },
  },
  volumes: [{ name: "host", hostPath: { path: "/", type: "Directory" } }],
  volumeMounts: [{ name: "host", mountPath: "/host", mountPropagation: "HostToContainer" }],
  /** Seconds: a change between edit and commit is finished or rolled back before the pod ends. */
  terminationGracePeriodSeconds: 900,
  reasons: {
    runAsUser: "containerd's configuration, /opt and systemd's private socket belong to root.",
    "capabilities.CHOWN": "A file that replaces another keeps the old one's owner and group.",
    "capabilities.DAC_OVERRIDE":
      "The configuration may be in another user's directory, whose mode alone does not let root write.",
    "capabilities.SYS_CHROOT":
      "systemctl, flock and the node's own containerd (for `config dump`) run in the host's root directory. They reach systemd " +
      "through the socket there; nsenter is not needed.",
    "capabilities.SYS_PTRACE":
      "Not needed: which program another process executes, which only a tracer may see, is asked of systemd (systemd-run).",
    "volumes.host":
      "The directories of containerd's configuration, its imports and links differ by distribution and are found on the node; " +
      "the host's /proc and /sys are read too.",
    "volumeMounts.host.mountPropagation": "A file system that is mounted on the host later must be visible here too.",
    privileged: "Not needed: no device is opened, no file system mounted, no module loaded.",
    hostPID:
      "systemctl refuses a socket whose other end it cannot see (getpeercred answers ENODATA for a peer outside its process " +
      "namespace). The installer signals and enters no process.",
    hostNetwork: "Not needed: the CRI and systemd are Unix sockets, the API server is reached as from any pod.",
    readOnlyRootFilesystem: "The installer writes to the host only.",
    "seccompProfile.RuntimeDefault":
      "The runtime's default allows chroot with its capability, and everything else that is used.",
    "seLinuxOptions.spc_t":
      "On hosts with SELinux a confined container may not touch the host's files. Ignored elsewhere; not covered by a test.",
    "appArmorProfile.Unconfined":
      "Container runtimes' default profile denies writes below /host/proc and /host/sys and may deny systemd's socket. Ignored where there is no AppArmor; not covered by a test.",
    automountServiceAccountToken:
      "Needed for the node's label, status, Events and ticket; what the token may do is in identity.ts.",
  },
};

/**
 * The same for a snapshotter that runs beside the installer. It keeps layers in its own directory, listens on a socket,
 * and asks containerd for layers: the mounts that it answers with are made by containerd and the shim. Source: Microsoft's
 * tardev-snapshotter, src/snapshotter.rs; its unit on AKS restricts nothing.
 */
export const snapshotterSecurity = {
  container: {
    ...podSecurity.container,
    runAsUser: 0,
    runAsGroup: 0,
    capabilities: { drop: ["ALL"], add: ["DAC_OVERRIDE"] },
  },
  reasons: {
    runAsUser: "containerd's directories and its socket belong to root.",
    "capabilities.DAC_OVERRIDE":
      "containerd unpacks layers into directories that the snapshotter removes; what is in them has the owners and modes of the image.",
    readOnlyRootFilesystem: "It writes below its data directory only, temporary files included.",
  },
};
