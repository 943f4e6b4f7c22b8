import type { DistributionName } from "../../runtime/spec.ts";
import type { NodeWithInstaller } from "./installer-on-node.ts";
import { configPath } from "./installer-on-node.ts";

/**
 * Stand-ins for the distributions that render containerd's configuration: their documented files, and units that on every
 * start render these files and start a second containerd beside the node's, with its own directories and socket. A small
 * shell script replaces the agents' templating; the node's own configuration replaces an agent's built-in template.
 */
export interface Rendering {
  name: string;
  distribution: DistributionName;
  unit: string;
  socket: string;
  /** What containerd reads. */
  configuration: string;
  /** The file that the installer edits or creates. */
  edited: string;
  /** The file in which somebody else adds a runtime while ours is installed. */
  foreign: string;
  /** Files of the administrator or the distribution, before anything is installed. */
  files: (builtIn: string) => Record<string, string>;
  /** What an upgrade of the distribution changes of them. */
  upgrade?: (builtIn: string) => Record<string, string>;
  /** The unit's program. */
  program: string;
  links: Record<string, string>;
}

/** containerd with its own directories. No overlay can be mounted on the node's root, which is an overlay itself. */
const containerd = (binary: string, root: string, state: string, address: string) =>
  `${binary} --root ${root} --state ${state} --address ${address}`;
const disk = (root: string) =>
  `mkdir -p ${root.replace(/\/[^/]*$/, "")} /var/lib/containerd/second && ln -sfn /var/lib/containerd/second ${root}`;

interface RancherOptions {
  unit: string;
  /** The template's names: with containerd 2.x, and before. */
  template: "config-v3.toml.tmpl" | "config.toml.tmpl";
  /** Recent ones import this folder. */
  dropIns?: string;
  /** The administrator's own template. */
  own?: string;
}

function rancher(distribution: "k3s" | "rke2", { unit, template, dropIns, own }: RancherOptions): Rendering {
  const data = `/var/lib/rancher/${distribution}`;
  const folder = `${data}/agent/etc/containerd`;
  const binary = distribution === "k3s" ? `${data}/data/current/bin/containerd` : `${data}/bin/containerd`;
  const socket = "/run/k3s/containerd/containerd.sock";
  const base = `${data}/${template.includes("v3") ? "base-v3.toml" : "base.toml"}`;
  const dropIn = dropIns && `${folder}/${dropIns}/contrast-runtime.toml`;
  return {
    name: `${unit} with ${dropIns ?? (own ? `the administrator's ${template}` : "its built-in template")}`,
    distribution,
    unit,
    socket,
    configuration: `${folder}/config.toml`,
    edited: dropIn ?? `${folder}/${template}`,
    foreign: dropIns ? `${folder}/${dropIns}/theirs.toml` : `${folder}/${template}`,
    files: (builtIn) => ({
      [base]: dropIns ? `imports = ["${folder}/${dropIns}/*.toml"]\n${builtIn}` : builtIn,
      ...(own && { [`${folder}/${template}`]: own }),
    }),
    // Recent ones import drop-ins.
    upgrade: (builtIn) => ({
      [base]: `imports = ["${folder}/${template.replace(/tmpl$/, "d")}/*.toml"]\n${builtIn}`,
    }),
    // Its newer template wins; while there is only an older one, that one is rendered in the older version.
    program: `template=${folder}/config-v3.toml.tmpl base=${data}/base-v3.toml
[ -e $template ] || [ ! -e ${folder}/config.toml.tmpl ] || template=${folder}/config.toml.tmpl base=${data}/base.toml
[ -e $base ] || base=${data}/base.toml
[ -e $template ] || { template=/run/built-in.tmpl; echo '{{ template "base" . }}' >$template; }
sed -e "/{{ template \\"base\\" \\. }}/{r $base" -e 'd}' -e "s/{{ \\.NodeConfig\\.AgentConfig\\.NodeName }}/$(hostname)/" $template >${folder}/config.toml
${disk(`${data}/agent/containerd`)}
exec ${containerd(binary, `${data}/agent/containerd`, "/run/k3s/containerd", socket)} --config ${folder}/config.toml`,
    links: { [binary]: "/usr/bin/containerd" },
  };
}

const k0s: Rendering = {
  name: "k0sworker.service with its drop-ins",
  distribution: "k0s",
  unit: "k0sworker.service",
  socket: "/run/k0s/containerd.sock",
  configuration: "/run/k0s/containerd-cri.toml",
  edited: "/etc/k0s/containerd.d/contrast-runtime.toml",
  foreign: "/etc/k0s/containerd.d/theirs.toml",
  files: (builtIn) => ({
    "/etc/k0s/containerd.toml": `# k0s_managed=true\n${/^version = \d$/m.exec(builtIn)?.[0]}\nimports = ["/run/k0s/containerd-cri.toml"]\n`,
    "/var/lib/k0s/base.toml": builtIn,
  }),
  // It merges the drop-ins' tables, watches their folder and restarts its containerd, which is its child, on its own.
  program: `${disk("/var/lib/k0s/containerd")}
drop_ins() { mkdir -p /etc/k0s/containerd.d /run/k0s; find /etc/k0s/containerd.d -name '*.toml' ! -name '.*' -exec cat {} +; }
trap 'kill $child; wait $child; exit' TERM
while :; do
  seen=$(drop_ins)
  { cat /var/lib/k0s/base.toml; echo "$seen" | sed '/^#/d; /^version = /d'; } >/run/k0s/containerd-cri.toml
  ${containerd("/var/lib/k0s/bin/containerd", "/var/lib/k0s/containerd", "/run/k0s/containerd", "/run/k0s/containerd.sock")} --config /etc/k0s/containerd.toml & child=$!
  while kill -0 $child && [ "$(drop_ins)" = "$seen" ]; do sleep 0.3; done
  kill $child; wait $child
done`,
  links: { "/var/lib/k0s/bin/containerd": "/usr/bin/containerd" },
};

/** From 1.36, its own file imports the drop-ins, and one of the older version keeps it from starting. */
const k0sFrom136: Rendering = {
  ...k0s,
  name: "k0sworker.service from 1.36, whose own file imports its drop-ins",
  configuration: "/etc/k0s/containerd.toml",
  files: (builtIn) => ({
    "/etc/k0s/containerd.toml": `# k0s_managed=true\nimports = ["/etc/k0s/containerd.d/*.toml"]\n${builtIn}`,
  }),
  program: k0s.program.replace(
    /^ *\{ cat .*$/m,
    `  ! echo "$seen" | grep -qx 'version = [^3]' || { echo 'refused: a drop-in has another version than 3' >&2; exit 1; }`,
  ),
};

const snap = "/var/snap/microk8s";
const microk8s: Rendering = {
  name: "snap.microk8s.daemon-containerd.service with its template",
  distribution: "microk8s",
  unit: "snap.microk8s.daemon-containerd.service",
  socket: `${snap}/common/run/containerd.sock`,
  configuration: `${snap}/current/args/containerd.toml`,
  edited: `${snap}/current/args/containerd-template.toml`,
  foreign: `${snap}/current/args/containerd-template.toml`,
  files: (builtIn) => ({
    [`${snap}/7229/args/containerd-template.toml`]: builtIn.replace(
      'runtime_type = "io.containerd.runc.v2"',
      'runtime_type = "$' + '{RUNTIME_TYPE}"',
    ),
  }),
  program: `${disk(`${snap}/common/var/lib/containerd`)}
mkdir -p ${snap}/common/run
cd ${snap}/current/args
sed 's@\${RUNTIME_TYPE}@io.containerd.runc.v2@g' containerd-template.toml >containerd.toml
exec ${containerd("/snap/microk8s/current/bin/containerd", `${snap}/common/var/lib/containerd`, `${snap}/common/run/containerd`, `${snap}/common/run/containerd.sock`)} --config ${snap}/current/args/containerd.toml`,
  // A refresh of the snap changes the target of `current`.
  links: { [`${snap}/current`]: "7229", "/snap/microk8s/current/bin/containerd": "/usr/bin/containerd" },
};

const ownTemplate = `{{ template "base" . }}
# by the platform team, for {{ .NodeConfig.AgentConfig.NodeName }}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.own]
  runtime_type = "io.containerd.runc.v2"
`;

/** What is upgraded in place while pods run. */
export const upgradable = {
  k3s: rancher("k3s", { unit: "k3s-agent.service", template: "config.toml.tmpl" }),
  rke2: rancher("rke2", { unit: "rke2-agent.service", template: "config-v3.toml.tmpl" }),
  k0s,
  k0sFrom136,
};

/** The distributions on nodes with containerd 2.x, and with 1.7. */
export const renderings = {
  "2.x": [
    rancher("k3s", { unit: "k3s.service", template: "config-v3.toml.tmpl" }),
    rancher("rke2", { unit: "rke2-agent.service", template: "config-v3.toml.tmpl", dropIns: "config-v3.toml.d" }),
    k0s,
    k0sFrom136,
  ],
  "1.7": [rancher("k3s", { unit: "k3s-agent.service", template: "config.toml.tmpl", own: ownTemplate }), microk8s],
};

const programPath = "/opt/test/distribution";

/** As in all of them, pods survive a restart. */
const unitText = (distribution: DistributionName) => `[Service]
Type=${distribution === "k0s" ? "simple" : "notify"}
ExecStart=${programPath}
KillMode=process
Delegate=yes
Restart=always
RestartSec=5
`;

/** The second containerd gets its directories and socket on its command line, as in the distributions. */
export async function builtInOf(node: NodeWithInstaller): Promise<string> {
  const own = (await node.read(configPath)) ?? "";
  return own.replace(/^(root|state) = .*\n/gm, "").replace(/^\[grpc\]\n.*\n/m, "");
}

export async function start(node: NodeWithInstaller, rendering: Rendering): Promise<void> {
  const { distribution, unit, files, program, links } = rendering;
  const builtIn = await builtInOf(node);
  for (const [path, text] of Object.entries(files(builtIn))) await node.write(path, text);
  for (const [path, target] of Object.entries(links)) {
    await node.run("sh", "-c", `mkdir -p "$(dirname ${path})" && ln -sfn ${target} ${path}`);
  }
  await node.write(programPath, `#!/bin/sh\n${program}\n`);
  await node.run("chmod", "755", programPath);
  await node.write(`/etc/systemd/system/${unit}`, unitText(distribution));
  await node.run(
    "sh",
    "-c",
    `mkdir -p "$(dirname ${rendering.configuration})" && systemctl daemon-reload && systemctl start ${unit}`,
  );
}

/** Resets the node as if it had never run that distribution. */
export async function remove(node: NodeWithInstaller, { unit }: Rendering): Promise<void> {
  await node.run(
    "sh",
    "-c",
    `systemctl stop ${unit}
rm -rf /etc/systemd/system/${unit} /var/lib/rancher /etc/k0s /var/lib/k0s /run/k0s /run/k3s ${snap} /snap/microk8s
rm -rf /var/lib/containerd/second; systemctl daemon-reload`,
  );
}
