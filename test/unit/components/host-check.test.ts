import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { checkScript } from "../../../components/host-check.ts";
import { createNodeHost } from "../../../node-installer/host/node-host.ts";
import { checkHost, gatherHostFacts, tablesFor } from "../../../node-installer/requirements/check-host.ts";
import type { Finding } from "../../../node-installer/requirements/finding.ts";
import { platforms } from "../../../runtime/platforms.ts";
import type { HostRequirements } from "../../../runtime/spec.ts";
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
function overSsh(root: string, requirements: HostRequirements) {
  const env = { PATH: process.env.PATH ?? "", ROOT: root };
  const { status, stdout, stderr } = spawnSync("sh", ["-s"], {
    input: checkScript(requirements),
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
