import { existsSync } from "node:fs";

const devices = ["/dev/kvm", "/dev/vhost-vsock", "/dev/vhost-net", "/dev/net/tun"];

/** What nodes must have of this machine to start VMs; empty where it lacks one of them, and so starts none. */
export const vmDevices = (exists: (path: string) => boolean = existsSync): readonly string[] =>
  devices.every(exists) ? devices : [];
