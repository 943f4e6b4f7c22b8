import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { clusterLayout, nodeLayout } from "../../tools/local-cluster/layout.ts";
import { leader } from "../../tools/local-cluster/node-machine.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { check } from "../../tools/process/run.ts";
import { debianFiles } from "../../tools/programs/debian.ts";
import { requireHostPrograms } from "../../tools/programs/host-packages.ts";
import type { TestCluster } from "./harness.ts";

/** A user's key pair, made for one run, as ssh-keygen writes it. */
export interface UserKey {
  privateKey: string;
  publicKey: string;
}

export async function makeUserKey(): Promise<UserKey> {
  const client = ["ssh", "ssh-keygen"].map((program) => ({ program, package: "openssh-client" }));
  await requireHostPrograms(client, toStderr);
  const directory = await mkdtemp(join(tmpdir(), "contrast-key-"));
  try {
    const file = join(directory, "key");
    await check("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", file]);
    return { privateKey: await readFile(file, "utf8"), publicKey: await readFile(`${file}.pub`, "utf8") };
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** sshd and sudo of the nodes' own Debian, with the libraries that a minimal system lacks. */
const serverFiles = () =>
  debianFiles(
    {
      name: "ssh-server",
      suite: "bookworm",
      packages: [
        ..."openssh-server openssh-client sudo libssl3 libwrap0 libgssapi-krb5-2 libkrb5-3 libk5crypto3".split(" "),
        ..."libkrb5support0 libnsl2 libtirpc3 libkeyutils1 libcom-err2 libpam0g libselinux1 libsystemd0 libaudit1 zlib1g".split(
          " ",
        ),
      ],
    },
    toStderr,
  );

/** What the packages' scripts and an administrator do: users, their keys, the right to become root. */
const setUp = `set -eu
echo 'sshd:x:105:65534::/run/sshd:/usr/sbin/nologin' >>/etc/passwd
echo 'ops:x:1000:65534::/home/ops:/bin/sh' >>/etc/passwd
echo 'ops:*:20000:0:99999:7:::' >>/etc/shadow
echo 'ops ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ops
chmod 0440 /etc/sudoers.d/ops
key=$(cat)
for home in /root /home/ops; do
  mkdir -p "$home/.ssh"
  echo "$key" >"$home/.ssh/authorized_keys"
  chmod -R go= "$home"
done
chown -R ops /home/ops
mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
# Of the type "notify": it listens when this returns.
systemd-run --quiet --unit=sshd --property=Type=notify /usr/sbin/sshd -D -f /dev/null || { journalctl --no-pager --unit=sshd; exit 1; }
cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub
`;

/**
 * Runs a real sshd on a node that admits root and `ops`, who may become root with sudo. Returns the host key: its type and
 * the key.
 */
export async function startSshServer(cluster: TestCluster, node: string, user: UserKey): Promise<string> {
  const layout = clusterLayout(cluster.name);
  const pid = await leader(layout, nodeLayout(layout, { name: node, number: 0 }));
  await check("cp", ["-a", `${await serverFiles()}/.`, `/proc/${pid}/root/`]);
  const { code, stdout, stderr } = await cluster.tryOnNode(node, ["sh", "-c", setUp], user.publicKey);
  if (code !== 0) throw new Error(`no sshd on ${node}:\n${stderr}${stdout}`);
  return stdout.trim();
}
