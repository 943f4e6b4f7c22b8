import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { checkScript } from "../../../components/host-check.ts";
import { createNodeHost } from "../../../node-installer/host/node-host.ts";
import { checkHost, gatherHostFacts, tablesFor } from "../../../node-installer/requirements/check-host.ts";
import type { Finding } from "../../../node-installer/requirements/finding.ts";
import { unreplaceable } from "../../../node-installer/requirements/replaceable.ts";
import { platforms } from "../../../runtime/platforms.ts";
import type { DistributionName, HostRequirements } from "../../../runtime/spec.ts";
import { each, type Files, hosts, snp, tdx } from "../node-installer/requirements/hosts.ts";

/*
 * A host is judged twice: over SSH before it joins its cluster, and by the installer on the node. Both judge the same tree
 * of files here, and must come to the same verdict in the same words.
 */

const trees: string[] = [];
afterEach(() => {
  for (const root of trees.splice(0)) rmSync(root, { recursive: true });
});

function tree(files: Files): string {
  const root = mkdtempSync(join(tmpdir(), "host-check-"));
  trees.push(root);
  const below = (path: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    return join(root, path);
  };
  each(files, {
    file: (path, content) => writeFileSync(below(path), content),
    link: (path, target) => symlinkSync(target, below(path)),
  });
  return root;
}

/** As sshd would run it: the script on standard input of `sh -s`. */
function overSsh(root: string, requirements: HostRequirements, distribution: DistributionName = "k3s", programs = "") {
  const env = { PATH: `${programs}:${process.env.PATH}`, ROOT: root };
  const { status, stdout, stderr } = spawnSync("sh", ["-s"], {
    input: checkScript(requirements, distribution),
    encoding: "utf8",
    env,
  });
  return { status, stdout, stderr };
}

const codesIn = (requirements: HostRequirements) =>
  new Set(tablesFor(requirements).flatMap((table) => table.flat().map(({ code }) => code)));

/** What the installer finds of what both look at. */
async function onNode(root: string, requirements: HostRequirements): Promise<Finding[]> {
  const codes = codesIn(requirements);
  const facts = await gatherHostFacts(createNodeHost({ root }), []);
  return checkHost(facts, [requirements]).filter(({ code }) => codes.has(code));
}

const expectedOf = (findings: Finding[]) => {
  const failed = findings.some(({ severity }) => severity === "error");
  const lines = findings.map(({ severity, message }) => `${severity === "error" ? "problem" : severity}: ${message}\n`);
  return {
    status: failed ? 1 : 0,
    stdout: failed ? "" : "host can start guests of this kind\n",
    lines: lines.toSorted(),
  };
};

const shared = hosts.filter(([, , { virtualization }]) => virtualization !== "mshv");

describe("over SSH and on the node, the verdict and its words are the same:", () => {
  test.each(shared)("%s", async (_, files, requirements, expected) => {
    const root = tree(files);
    const { status, stdout, stderr } = overSsh(root, requirements);
    const lines = stderr.split(/(?<=\n)/).filter(Boolean);
    const findings = await onNode(root, requirements);
    expect({ status, stdout, lines: lines.toSorted() }).toEqual(expectedOf(findings));
    const codes = codesIn(requirements);
    const wanted = expected
      .map((text) => text.replace(/^warning:| \(reboot\)$/g, ""))
      .filter((code) => codes.has(code));
    expect(findings.map(({ code }) => code)).toEqual(wanted);
  });
});

test("every check of the tables is made on a host that passes it and on one that does not", () => {
  const all = [snp, tdx, platforms["metal-qemu-snp-gpu"].host, platforms["metal-qemu-tdx-gpu"].host];
  const known = new Set(all.flatMap((requirements) => [...codesIn(requirements)]));
  const found = new Set(shared.flatMap(([, , , codes]) => codes.map((code) => code.replace(/^warning:| .*$/g, ""))));
  expect([...known].filter((code) => !found.has(code))).toEqual([]);
  const passing = shared.filter(([, , , codes]) => codes.length === 0).map(([, , requirements]) => requirements);
  for (const requirements of [snp, tdx, platforms["metal-qemu-snp-gpu"].host])
    expect(passing).toContainEqual(requirements);
});

test("the script's answer to a host that needs no VMs is the same, whatever the host", () => {
  expect(overSsh(tree({}), platforms.local.host)).toEqual({
    status: 0,
    stdout: "host can start guests of this kind\n",
    stderr: "",
  });
});

describe("containerd's file", () => {
  const file = "/etc/containerd/config.toml";
  const mount = (path: string) => `40 22 8:1 /x ${path} rw - ext4 /dev/sda rw\n`;
  const listing = (fixed: string, flags: string) =>
    `#!/bin/sh\ncase $2 in *${fixed}) echo "${flags} $2" ;; *) echo "--------------e------- $2" ;; esac\n`;

  test.each<[string, { mounts?: string; lsattr?: string; says?: RegExp }]>([
    ["a file like any other", {}],
    ["a file on a mount of its own directory, with an attribute that matters to nobody", { mounts: mount("/etc") }],
    ["a file that is a mount", { mounts: mount(file), says: /config\.toml is a mount point of its own \(findmnt/ }],
    ["an immutable file", { lsattr: listing(file, "----i---------e-------"), says: /chattr -i \/etc.*toml\.$/m }],
    [
      "a file in a directory whose entries must stay",
      { lsattr: listing("/containerd", "-----a--------e-------"), says: /chattr -a \/etc\/containerd\.$/m },
    ],
    ["attributes that cannot be asked for", { lsattr: "#!/bin/sh\nexit 1\n" }],
  ])("%s: over SSH and on the node, the words are the same", async (_, { mounts = "", lsattr, says }) => {
    const root = tree({ [file]: "", "/proc/self/mountinfo": mounts });
    const programs = join(root, "programs");
    mkdirSync(programs);
    writeFileSync(join(programs, "lsattr"), lsattr ?? listing("/nothing", ""), { mode: 0o755 });
    const { status, stderr } = overSsh(root, platforms.local.host, "containerd", programs);
    // The tree has no programs of its own.
    const run = async (command: string, args: string[]) => {
      const {
        status: code,
        stdout,
        stderr,
      } = spawnSync(
        command === "lsattr" ? join(programs, "lsattr") : command,
        args.map((word) => (word.startsWith("/proc") ? join(root, word) : word)),
        { encoding: "utf8" },
      );
      return { code: code ?? 1, stdout, stderr };
    };
    const finding = await unreplaceable({ ...createNodeHost({ root }), run }, file);
    expect({ status, stderr }).toEqual({
      status: 0,
      stderr: finding === undefined ? "" : `warning: ${finding.message}\n`,
    });
    if (says === undefined) expect(finding).toBeUndefined();
    else expect(finding?.message).toMatch(says);
  });
});
