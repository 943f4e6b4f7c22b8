import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parse, stringify } from "yaml";

/* The steps of the workflows that write files into a repository, or compare what is there: run by bash, in a repository. */

const clone = resolve(import.meta.dirname, "../../..");
interface Workflow {
  permissions: object;
  jobs: Record<string, { steps: { name?: string; uses?: string; run?: string }[] }>;
}
const workflow = (file: string) => parse(readFileSync(join(clone, file), "utf8")) as Workflow;
const [payloads, manifests] = [workflow(".github/workflows/payloads.yml"), workflow("examples/gitops/render.yml")];
const step = ({ jobs }: Workflow, name: string): string => {
  const found = Object.values(jobs)
    .flatMap(({ steps }) => steps)
    .find((each) => each.name === name)?.run;
  if (found === undefined) throw new Error(`no step "${name}"`);
  return found;
};

let directory: string;
const file = (name: string) => join(directory, name);
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "workflow-"));
  for (const name of ["bin", "payloads", "manifests"]) mkdirSync(file(name));
  expect(bash("git init --quiet . && printf 'bin\\ncalls\\n' > .git/info/exclude").status).toBe(0);
});
afterEach(() => rmSync(directory, { recursive: true }));

function bash(script: string, env: Record<string, string> = {}) {
  return spawnSync("bash", ["-eo", "pipefail", "-c", script], {
    cwd: directory,
    encoding: "utf8",
    env: { ...process.env, PATH: `${file("bin")}:${process.env.PATH}`, ...env },
  });
}
function stub(name: string, script: string) {
  writeFileSync(file(`bin/${name}`), `#!/bin/sh\necho "$*" >>"${file("calls")}"\n${script}\n`);
  chmodSync(file(`bin/${name}`), 0o755);
}
const commit = () =>
  expect(bash("git add . && git -c user.name=t -c user.email=t@example.com commit --quiet -m x").stderr).toBe("");

test("a new payload brings an image that holds it to the stacks that have one of that repository", () => {
  const image = "registry.example.com/contrast-node-installer";
  const [before, after] = [`${image}@sha256:${"a".repeat(64)}`, `${image}@sha256:${"b".repeat(64)}`];
  const others = `mirror.example.com/installer@sha256:${"a".repeat(64)}`;
  const stack = (reference: string) => `config:\n  contrast-runtime:installerImage: ${reference} # by digest\n`;
  stub("npm", `case "$*" in *--push*) echo ${after} ;; esac`);
  writeFileSync(file("payloads/old.json"), "{}");
  writeFileSync(file("Pulumi.prod.yaml"), stack(before));
  writeFileSync(file("Pulumi.other.yaml"), stack(others));
  commit();
  const env = { INSTALLER_IMAGE: image };
  const run = () => bash(step(payloads, "Build and push the image"), env);
  expect(run()).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(file("Pulumi.prod.yaml"), "utf8")).toBe(stack(before));

  writeFileSync(file("payloads/new.json"), "{}");
  expect(run()).toMatchObject({ status: 0, stderr: "" });
  expect(readFileSync(file("Pulumi.prod.yaml"), "utf8")).toBe(stack(after));
  expect(readFileSync(file("Pulumi.other.yaml"), "utf8")).toBe(stack(others));
  // The image holds what is on the machine: every committed payload is brought there first.
  expect(readFileSync(file("calls"), "utf8").trim().split("\n")).toEqual([
    "run lock -- fetch --manifest payloads/new.json",
    "run lock -- fetch --manifest payloads/old.json",
    `run --silent image -- --push ${image}`,
  ]);
});

test("an image that cannot be built leaves the stacks as they are, and the workflow fails", () => {
  const stack = `config:\n  contrast-runtime:installerImage: r.example.com/i@sha256:${"a".repeat(64)}\n`;
  stub("npm", `case "$*" in *--push*) exit 1 ;; esac`);
  writeFileSync(file("Pulumi.prod.yaml"), stack);
  commit();
  writeFileSync(file("payloads/new.json"), "{}");
  expect(bash(step(payloads, "Build and push the image"), { INSTALLER_IMAGE: "r.example.com/i" }).status).toBe(1);
  expect(readFileSync(file("Pulumi.prod.yaml"), "utf8")).toBe(stack);
});

test("manifests that are not what the stack's file says fail a pull request, also by a new file", () => {
  stub("npx", `shift\nexec ${process.execPath} ${join(clone, "tools/cli/main.ts")} "$@"`);
  const stack = (payload: string) =>
    stringify({
      config: {
        "contrast-runtime:cluster": { kind: "kubeconfig", name: "prod" },
        "contrast-runtime:installerImage": `registry.example.com/i@sha256:${"a".repeat(64)}`,
        "contrast-runtime:groups": {
          snp: {
            distribution: "containerd",
            runtimes: [{ platform: "metal-qemu-snp", payload: `test/fixtures/manifests/fixture-${payload}.json` }],
          },
        },
      },
    });
  mkdirSync(file("manifests/prod"));
  writeFileSync(file("Pulumi.prod.yaml"), stack("kata-rs"));
  const rendering = () => bash(step(manifests, "Render"));
  const comparing = () => bash(step(manifests, "Compare"));
  expect(rendering()).toMatchObject({ status: 0, stderr: "" });
  commit();
  expect(comparing().status).toBe(0);

  writeFileSync(file("Pulumi.prod.yaml"), stack("kata-go"));
  expect(rendering()).toMatchObject({ status: 0, stderr: "" });
  const { status, stdout } = comparing();
  expect(status).toBe(1);
  expect(stdout).toMatch(/new file mode .*\n.*\n--- \/dev\/null\n\+\+\+ b\/manifests\/prod\/runtimeclass-/);
}, 300_000);

test("the example has no rights but to read, and actions by commit alone", () => {
  expect(manifests.permissions).toEqual({});
  for (const { uses } of Object.values(manifests.jobs).flatMap(({ steps }) => steps))
    if (uses !== undefined) expect(uses).toMatch(/^[\w-]+\/[\w-]+@[0-9a-f]{40}$/);
});
