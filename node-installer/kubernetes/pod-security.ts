/**
 * What the installer's pod may do on its node. Plain objects for the pod template; `reasons` says of each permission why
 * the installer cannot do without it, and of each that one would expect why it can.
 *
 * Root with the host's files and systemd's socket is as good as root on the host, whatever is dropped here: this keeps
 * accidents small. The boundary is who may write to the namespace, and the image's digest.
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
  /** Seconds: a change between edit and commit is ended, or taken back, before the pod goes. */
  terminationGracePeriodSeconds: 900,
  reasons: {
    runAsUser: "containerd's configuration, /opt and systemd's private socket belong to root.",
    "capabilities.CHOWN": "A file that replaces another keeps that one's owner and group.",
    "capabilities.DAC_OVERRIDE":
      "The configuration may lie in a directory of another user, which root may not write to by its mode alone.",
    "capabilities.SYS_CHROOT":
      "systemctl, flock and the node's own containerd (for `config dump`) run in the host's root directory. They reach systemd by " +
      "the socket that lies there; nsenter is not needed.",
    "volumes.host":
      "Which directories containerd's configuration, its imports and links lie in differs by distribution and is found out on the node; " +
      "the kernel's /proc and /sys of the host are looked at too.",
    "volumeMounts.host.mountPropagation": "A file system that is mounted on the host later has to be seen here too.",
    privileged: "Not needed: no device is opened, nothing is mounted, no module loaded.",
    hostPID:
      "systemctl refuses a socket whose other end it cannot see (getpeercred answers ENODATA for a peer outside its process " +
      "namespace). No process is signalled or entered.",
    hostNetwork: "Not needed: the CRI and systemd are Unix sockets, the API server is reached as from any pod.",
    readOnlyRootFilesystem: "The installer writes to the host only.",
    "seccompProfile.RuntimeDefault":
      "The runtime's default allows chroot with its capability, and everything else that is used.",
    "seLinuxOptions.spc_t":
      "On hosts with SELinux a confined container may not touch the host's files. Ignored elsewhere; not covered by a test.",
    "appArmorProfile.Unconfined":
      "The profile of container runtimes denies writes below /host/proc and /host/sys paths and may deny systemd's socket. Ignored where there is no AppArmor; not covered by a test.",
    automountServiceAccountToken:
      "Needed for the node's label, status, Events and ticket; what the token may do is in identity.ts.",
  },
};
