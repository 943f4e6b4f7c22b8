/**
 * What holds where neither a stack nor a program says otherwise: the only place of these values. The stack's schema, the
 * components and the commands take them from here.
 */
export const defaults = {
  /** Nodes of a group between edit and commit at a time. */
  atOnce: 1,
  /** A rollout fails if fewer nodes match. */
  minimumNodes: 1,
  /** Seconds without progress after which a rollout or a removal gives up. */
  stallTimeout: 600,
  /** Of the installer's pods: they must not be evicted in the middle of a change. */
  priorityClass: "system-node-critical",
  /** What the installer's container requests. */
  installerCpu: "20m",
  installerMemory: "96Mi",
  verifySandbox: false,
  loadPendingChanges: false,
  debug: false,
  /** What happens on the nodes when the group leaves the stack. */
  onDestroy: "uninstall",
  sshUser: "root",
  sshPort: 22,
  aksCredentials: "user",
  teeKeys: false,
} as const;

/** What may happen on nodes that leave: see `defaults.onDestroy`. */
export const onDestroyValues = ["uninstall", "leave"] as const;
export type OnDestroy = (typeof onDestroyValues)[number];
