/** The minor versions of containerd that are supported: every one of them is run in a local cluster by the tests. */
export const containerdVersions = ["1.7", "2.0", "2.1", "2.2", "2.3", "2.4"] as const;
export type ContainerdVersion = (typeof containerdVersions)[number];

/** Earlier ones are out of support, and ignore where a runtime's shim is. */
export const oldestContainerd = "1.7.0";
