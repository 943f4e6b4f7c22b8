import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parse } from "smol-toml";
import { afterEach, describe, expect, test } from "vitest";
import {
  joinScript,
  prepareScript,
  registryScript,
  unprepareScript,
  unregistryScript,
} from "../../../components/bare-metal-scripts.ts";
import { platforms } from "../../../runtime/platforms.ts";

const roots: string[] = [];
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

/** A host as a tree of files. */
function host(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), "host-"));
  roots.push(root);
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
  return root;
}

/** As sshd would run it: the script on standard input of `sh -s`. */
const run = (root: string, stdin: string, command = "sh -s") =>
  spawnSync("sh", ["-c", command], {
    input: stdin,
    encoding: "utf8",
    env: { PATH: process.env.PATH ?? "", ROOT: root },
  });

const filesOf = (root: string): string[] =>
  execFileSync("find", [root, "-type", "f"], { encoding: "utf8" })
    .split("\n")
    .filter(Boolean)
    .map((file) => file.slice(root.length))
    .sort();

const snp = platforms["metal-qemu-snp"].host;
describe("preparing a host", () => {
  test("persists modules, sysctls and limits, with the same result each time, and removes them", () => {
    const root = host({ "/etc/sysctl.d/99-admin.conf": "kernel.panic = 10\n" });
    const prepare = prepareScript(snp, "k3s");
    expect(run(root, prepare)).toMatchObject({ status: 0, stderr: "" });
    const files = filesOf(root);
    expect(files).toEqual([
      "/etc/modprobe.d/contrast-runtime.conf",
      "/etc/modules-load.d/contrast-runtime.conf",
      "/etc/sysctl.d/98-contrast-runtime.conf",
      "/etc/sysctl.d/99-admin.conf",
      "/etc/systemd/system/k3s-agent.service.d/60-contrast-runtime.conf",
      "/etc/systemd/system/k3s.service.d/60-contrast-runtime.conf",
    ]);
    expect(readFileSync(join(root, "/etc/modprobe.d/contrast-runtime.conf"), "utf8")).toBe(
      "# written by contrast-runtime\noptions kvm_amd sev=1 sev_es=1 sev_snp=1\n",
    );
    expect(run(root, prepare).status).toBe(0);
    expect(filesOf(root)).toEqual(files);

    expect(run(root, "", unprepareScript("k3s")).status).toBe(0);
    expect(filesOf(root)).toEqual(["/etc/sysctl.d/99-admin.conf"]);
  });

  test.each([
    ["128", "8192"],
    ["65536", "65536"],
  ])("raises the number of inotify instances from %s to %s and never lowers it", (before, after) => {
    const root = host({ "/proc/sys/fs/inotify/max_user_instances": `${before}\n` });
    expect(run(root, prepareScript(platforms.local.host, "containerd")).status).toBe(0);
    expect(readFileSync(join(root, "/etc/sysctl.d/98-contrast-runtime.conf"), "utf8")).toBe(
      `# written by contrast-runtime\nfs.inotify.max_user_instances = ${after}\n`,
    );
  });

  test("a registry's CA is trusted for that registry only", () => {
    const root = host({});
    expect(
      run(root, registryScript("mirror.example:5000", "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"))
        .status,
    ).toBe(0);
    const directory = "/etc/containerd/certs.d/mirror.example:5000";
    expect(readFileSync(join(root, directory, "ca.crt"), "utf8")).toBe(
      "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
    );
    expect(readFileSync(join(root, directory, "hosts.toml"), "utf8")).toContain(`ca = "${directory}/ca.crt"`);

    expect(run(root, "", unregistryScript("mirror.example:5000")).status).toBe(0);
    expect(filesOf(root)).toEqual([]);
  });

  test.each([
    ["the end of a here-document", 'CONTENT\ntouch "$ROOT/executed"'],
    ["a quote", "'; touch \"$ROOT/executed\"; '"],
    ["a substitution", '$(touch "$ROOT/executed")`touch "$ROOT/executed"`'],
    ["an option", "-n\n--\n%s\\n\\c"],
  ])("a certificate's text is data, even with %s in it", (_, hostile) => {
    const root = host({});
    const { status, stderr } = run(root, registryScript("mirror.example", `first\n${hostile}\nlast\n`));
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const directory = "/etc/containerd/certs.d/mirror.example";
    expect(readFileSync(join(root, directory, "ca.crt"), "utf8")).toBe(`first\n${hostile}\nlast\n`);
    expect(filesOf(root)).toEqual([`${directory}/ca.crt`, `${directory}/hosts.toml`]);
  });

  test("so is a registry's name: in the script, as a path, and in containerd's file", () => {
    const registry = `a"]'; touch "$ROOT/executed" #\nserver = "evil`;
    const root = host({});
    expect(run(root, registryScript(registry, "certificate"))).toMatchObject({ status: 0, stderr: "" });
    const directory = join(root, "/etc/containerd/certs.d", registry);
    const hosts = parse(readFileSync(join(directory, "hosts.toml"), "utf8"));
    expect(hosts).toMatchObject({ server: `https://${registry}`, host: { [`https://${registry}`]: {} } });
    expect(run(root, "", unregistryScript(registry)).status).toBe(0);
    expect(filesOf(root)).toEqual([]);
  });

  test("an admin's own settings of the registry are not overwritten", () => {
    const file = "/etc/containerd/certs.d/mirror.example/hosts.toml";
    const root = host({ [file]: "# mine\n" });
    const { status, stderr } = run(root, registryScript("mirror.example", "certificate"));
    expect(status).toBe(1);
    expect(stderr).toContain(`${file} already exists and is not ours`);
    expect(readFileSync(join(root, file), "utf8")).toBe("# mine\n");
    expect(filesOf(root)).toEqual([file]);
  });
});

describe("joining", () => {
  const join1 = 'echo joined >> "$ROOT/log"\nfalse\necho never';

  test("runs the secret command on a host that is in no cluster, and stops where it fails", () => {
    const root = host({});
    expect(run(root, join1, joinScript("containerd")).status).toBe(1);
    expect(readFileSync(join(root, "log"), "utf8")).toBe("joined\n");
  });

  test("what the command prints stays on the host, for root", () => {
    const log = "/var/log/contrast-runtime/join.log";
    const root = host({});
    for (const [script, status] of [
      ["set -x; : token", 0],
      ["echo token; echo token >&2; exit 3", 1],
    ] as const) {
      const result = run(root, script, joinScript("containerd"));
      expect(result.status).toBe(status);
      expect(result.stdout + result.stderr).not.toContain("token");
      expect(result.stdout + result.stderr).toContain(log);
      expect(readFileSync(join(root, log), "utf8")).toContain("token");
      expect(statSync(join(root, log)).mode & 0o777).toBe(0o600);
    }
  });

  test("leaves a member alone", () => {
    const root = host({ "/etc/kubernetes/kubelet.conf": "" });
    const { status, stdout } = run(root, join1, joinScript("containerd"));
    expect({ status, stdout }).toEqual({
      status: 0,
      stdout: "already a member: /etc/kubernetes/kubelet.conf is there\n",
    });
  });

  test("does not write the command anywhere", () => {
    expect(joinScript("k3s")).not.toContain("token");
  });
});
