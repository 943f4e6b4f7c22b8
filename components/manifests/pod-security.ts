/**
 * What the installer's pod may do on its node, as plain objects for the pod template. Above each permission stands why the
 * installer needs it, or does without one that would be expected.
 *
 * Root with the host's files and systemd's socket amounts to root on the host, whatever is dropped here: dropping the rest
 * limits accidents. The security boundary is who may write to the namespace, and the image's digest.
 */
export const podSecurity = {
  // The pod also has its service account's token, for the node's label, status, Events and ticket; identity.ts says what
  // that token may do.
  pod: {
    // systemctl refuses a socket whose other end it cannot see (getpeercred answers ENODATA for a peer outside its process
    // namespace). The installer signals and enters no process.
    hostPID: true,
    // The CRI and systemd are Unix sockets, the API server is reached as from any pod.
    hostNetwork: false,
    hostIPC: false,
    securityContext: {
      // containerd's configuration, /opt and systemd's private socket belong to root.
      runAsUser: 0,
      runAsGroup: 0,
      // The runtime's default allows chroot with its capability, and everything else that is used.
      seccompProfile: { type: "RuntimeDefault" },
    },
  },
  container: {
    // No device is opened, no file system mounted, no module loaded.
    privileged: false,
    allowPrivilegeEscalation: false,
    // The installer writes to the host only.
    readOnlyRootFilesystem: true,
    capabilities: {
      drop: ["ALL"],
      // SYS_PTRACE is not among them: which program another process executes, which only a tracer may see, is asked of
      // systemd (systemd-run).
      add: [
        // A file that replaces another keeps the old one's owner and group.
        "CHOWN",
        // The configuration may be in another user's directory, whose mode alone does not let root write.
        "DAC_OVERRIDE",
        // systemctl, flock and the node's own containerd (for `config dump`) run in the host's root directory. They reach
        // systemd through the socket there; nsenter is not needed.
        "SYS_CHROOT",
      ],
    },
    // On hosts with SELinux a confined container may not touch the host's files. Ignored elsewhere; not covered by a test.
    seLinuxOptions: { type: "spc_t" },
    // Container runtimes' default profile denies writes below /host/proc and /host/sys and may deny systemd's socket.
    // Ignored where there is no AppArmor; not covered by a test.
    appArmorProfile: { type: "Unconfined" },
  },
  // The directories of containerd's configuration, its imports and links differ by distribution and are found on the node;
  // the host's /proc and /sys are read too.
  volumes: [{ name: "host", hostPath: { path: "/", type: "Directory" } }],
  // A file system that is mounted on the host later must be visible here too.
  volumeMounts: [{ name: "host", mountPath: "/host", mountPropagation: "HostToContainer" }],
  /** Seconds: a change between edit and commit is finished or rolled back before the pod ends. */
  terminationGracePeriodSeconds: 900,
};

/**
 * The same for a snapshotter that runs beside the installer. It keeps layers in its own directory, listens on a socket,
 * and asks containerd for layers: the mounts that it answers with are made by containerd and the shim. Source: Microsoft's
 * tardev-snapshotter, src/snapshotter.rs; its unit on AKS restricts nothing. It writes below its data directory only,
 * temporary files included.
 */
export const snapshotterSecurity = {
  container: {
    ...podSecurity.container,
    // containerd's directories and its socket belong to root.
    runAsUser: 0,
    runAsGroup: 0,
    capabilities: {
      drop: ["ALL"],
      add: [
        // containerd unpacks layers into directories that the snapshotter removes; what is in them has the owners and modes
        // of the image.
        "DAC_OVERRIDE",
      ],
    },
  },
};
