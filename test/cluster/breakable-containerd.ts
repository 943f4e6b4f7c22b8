import type { NodeWithInstaller } from "./installer-on-node.ts";

/**
 * How containerd breaks on a file that names a handler: its CRI plugin does not load (one of the file's runtimes has a base
 * specification that does not exist), it exits on start, or it never says that it has started, and is ended after two
 * seconds. systemd itself would allow it 90, and a limit of the unit's would hold for a containerd that is only slow, too.
 */
export type Breakage = "cri" | "exits" | "hangs";

const orderPath = "/opt/test/breakage";

/** Replaces containerd; without an order to break, and for everything except the daemon itself, it runs containerd. */
const script = `#!/bin/sh
case "$*" in *--version*|*dump*|*default*|*migrate*) exec /usr/bin/containerd-itself "$@" ;; esac
read -r breakage handler <${orderPath} 2>/dev/null && grep -q "$handler" /etc/containerd/config.toml || exec /usr/bin/containerd-itself "$@"
case $breakage in
cri)
  sed "/runtimes.$handler]/a base_runtime_spec = \\"/nowhere.json\\"" /etc/containerd/config.toml >/run/broken.toml
  exec /usr/bin/containerd-itself -c /run/broken.toml "$@" ;;
exits) exit 1 ;;
hangs) exec timeout 2 sleep infinity ;;
esac
`;

const dropIn = `[Service]
RestartSec=500ms
`;

export async function makeBreakable(node: NodeWithInstaller): Promise<void> {
  await node.run("mv", "/usr/bin/containerd", "/usr/bin/containerd-itself");
  await node.write("/usr/bin/containerd", script);
  await node.run("chmod", "755", "/usr/bin/containerd");
  await node.write("/etc/systemd/system/containerd.service.d/quick.conf", dropIn);
  await node.run("systemctl", "daemon-reload");
}

/** From its next start on, containerd breaks as long as its file has the handler. */
export const breakOn = (node: NodeWithInstaller, handler: string, breakage: Breakage): Promise<void> =>
  node.write(orderPath, `${breakage} ${handler}\n`);

export const heal = (node: NodeWithInstaller): Promise<string> => node.run("rm", "-f", orderPath);
