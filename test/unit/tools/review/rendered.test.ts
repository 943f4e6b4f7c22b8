import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { stringify } from "yaml";
import { rendered } from "../../../../tools/review/rendered.ts";
import { fixtureAdvisories, fixtureHandler } from "../../runtime/fixtures.ts";

/*
 * The summary of rendered manifests, from directories that the real command wrote. Of the same stack, the real engine's
 * previews have the summaries in test/golden/review (test/engine/review.test.ts): those are what it is compared with.
 */

const [old, next] = [fixtureHandler("contrast-go"), fixtureHandler("contrast-go-next")];
const runtime = (payload: string, more: object = {}) => ({
  platform: "metal-qemu-snp",
  payload: `test/fixtures/manifests/fixture-${payload}.json`,
  acknowledgedAdvisories: fixtureAdvisories[payload] ?? [],
  ...more,
});
const group = (...runtimes: object[]) => ({
  distribution: "containerd",
  nodes: { names: ["node-1", "node-2", "node-3"] },
  runtimes,
});

let root: string;
const at = (name: string) => join(root, name);
afterEach(() => vi.restoreAllMocks());
afterAll(() => rmSync(root, { recursive: true }));

/** A directory that is rendered over a copy of another. */
async function render(
  name: string,
  over: string | undefined,
  groups: object,
  options: { stack?: string; drop?: string[] } = {},
) {
  const file = at(`Pulumi.${options.stack ?? "review"}.yaml`);
  const config = {
    "contrast-runtime:cluster": { kind: "kubeconfig", name: "test" },
    "contrast-runtime:installerImage": `registry.example.com/contrast-node-installer@sha256:${"a".repeat(64)}`,
    "contrast-runtime:groups": groups,
  };
  writeFileSync(file, stringify({ config }));
  if (over !== undefined) cpSync(at(over), at(name), { recursive: true });
  // Each rendering is a process of its own: Pulumi's runtime belongs to one program.
  vi.resetModules();
  const { render } = await import("../../../../tools/render/render.ts");
  await render({ stack: file, output: at(name), dropClass: options.drop ?? [] });
}

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "rendered-"));
  mkdirSync(at("empty"));
  await render("first", undefined, { workers: group(runtime("contrast-go")) });
  await render("edited", "first", { workers: group(runtime("contrast-go-next")) });
  await render("dropped", "edited", { workers: group(runtime("contrast-go-next")) }, { drop: [old] });
  await render("renamed", "first", { others: { ...group(runtime("contrast-go")), formerly: "workers" } });
  await render("emptied", "first", { workers: group() });
  const names = { classNames: ["confidential"], currentFor: ["contrast-cc"] };
  await render("named", undefined, { workers: group(runtime("contrast-go", names)) });
  const both = group(runtime("contrast-go"), runtime("contrast-go-next", names));
  await render("moved", "named", { workers: { ...both, ignoreNodes: ["node-3"] } });
  await render("elsewhere", undefined, { workers: group(runtime("contrast-go")) }, { stack: "other" });
  cpSync(at("first"), at("old"), { recursive: true });
  rmSync(join(at("old"), "components.json"));
}, 600_000);

async function summary(before: string, after: string): Promise<string> {
  let text = "";
  vi.spyOn(process.stdout, "write").mockImplementation((part) => {
    text += part;
    return true;
  });
  await rendered({ before: at(before), after: at(after) });
  vi.restoreAllMocks();
  return text;
}

/** By title, the items of a section with their blocks, sorted: the order of objects is not the engine's. */
function sections(markdown: string): Record<string, string[]> {
  const [, ...parts] = markdown.replace(/\n<details>.*/s, "").split(/^### /m);
  return Object.fromEntries(
    parts.map((part) => {
      const [title = "", ...items] = part.split(/\n+(?=- \*)/);
      return [title, items.map((item) => item.trim()).sort()];
    }),
  );
}
const golden = (name: string) => sections(readFileSync(`test/golden/review/${name}.md`, "utf8"));
const lines = async (before: string, after: string, title: string) => sections(await summary(before, after))[title];

/** What only the engine does, or only manifests say, is left out of both sides. */
function shared({ Commands: _, "Applying the manifests": _applying, ...rest }: Record<string, string[]>): {
  [title: string]: string[];
  "Resource by resource": string[];
} {
  const isProvider = (item: string) => item.includes("Provider `kubernetes` is new");
  const only = /^ +\+ (metadata\.annotations\["pulumi\.com\/skipAwait"\]|manifestsOnly): .*\n/m;
  return {
    ...rest,
    "Resource by resource": (rest["Resource by resource"] ?? [])
      .filter((item) => !isProvider(item))
      .map((item) => item.replace(only, "")),
  };
}

test("what is new reads as in the engine's preview of the same stack", async () => {
  const text = await summary("empty", "first");
  expect(text).toMatch(/^<!-- contrast-runtime review of review -->\n\n## What this does to stack `review`\n/);
  expect(text).toContain("*known*: in the manifests' diff.");
  expect(shared(sections(text))).toEqual(shared(golden("create")));
  expect(text).not.toMatch(/engine|the update/i);
});

test("a payload that is edited in place reads as in the engine's preview, but for what no update does", async () => {
  const text = await summary("first", "edited");
  const expected = shared(golden("edited-in-place"));
  const waits = "While pods do, the update fails and names them.";
  expect(JSON.stringify(expected)).toContain(waits);
  // Its class outlives its runtime.
  const removed = `- *known* — RuntimeClass \`${old}\` is removed.`;
  expect(expected["Resource by resource"]).toContain(removed);
  expect(shared(sections(text))).toEqual({
    ...expected,
    Runtimes: expected.Runtimes?.map((item) => item.replace(waits, "Nothing waits for that.")),
    "Resource by resource": expected["Resource by resource"].filter((item) => item !== removed),
  });
  expect(sections(text)["Applying the manifests"]).toEqual([
    `- *known* — RuntimeClass \`${old}\` stays, though the stack no longer has it: pods may still say it. When none does, render again with \`--drop-class ${old}\`.`,
    "- *predicted* — Nothing waits for the nodes: `contrast-runtime status` says when they are done.",
    "- *predicted* — What is removed goes only if whatever applies the manifests prunes: `kubectl apply -k` alone removes nothing.",
  ]);
  expect(text).not.toMatch(/engine|the update/i);
});

test("nothing changes between two renderings of the same, also where a class is kept on", async () => {
  expect(await summary("first", "first")).toContain("\nNothing changes.\n");
  expect(await summary("edited", "edited")).toContain("\nNothing changes.\n");
});

test("a kept class goes when it is dropped, and a group's runtimes with the group's last rendering", async () => {
  expect(await lines("edited", "dropped", "Resource by resource")).toEqual([
    `- *known* — RuntimeClass \`${old}\` is removed.`,
  ]);
  const emptied = sections(await summary("first", "emptied"));
  expect(emptied.Runtimes?.[0]).toContain(`Group \`workers\` loses \`${old}\``);
  expect(emptied["Applying the manifests"]?.[0]).toContain(`RuntimeClass \`${old}\` stays`);
  expect(await lines("first", "empty", "Runtimes")).toContainEqual(
    expect.stringContaining(
      "removed manifests uninstall nothing. Let its nodes finish an empty list of runtimes first",
    ),
  );
});

test("a renamed group is the same group, whose nodes stay as they are", async () => {
  const renamed = sections(await summary("first", "renamed"));
  expect(renamed.Nodes).toEqual([
    "- *known* — Group `workers` is renamed to `others`.",
    "- *predicted* — Installers of `others` take over its nodes as they are: the name alone changes nothing else on them.",
  ]);
  expect(renamed["Restarts of containerd"]).toEqual([
    "- *predicted* — Group `others`: nothing that containerd reads changes; it does not restart.",
  ]);
});

test("names lead to another handler: a class is made anew, and nothing is said of an update or a rollout", async () => {
  const moved = sections(await summary("named", "moved"));
  expect(moved.Runtimes).toContain("- *known* — RuntimeClass `confidential` is deleted and created again.");
  expect(moved.Runtimes).toContain(`- *known* — RuntimeClass \`confidential\`: \`handler\` \`${old}\` → \`${next}\`.`);
  expect(moved.Runtimes).toContain(
    `- *predicted* — Running pods keep \`${old}\`, also when they start again on their node. Roll the workloads, then remove its runtime: \`contrast-runtime status\` names the pods that still use it.`,
  );
  expect(moved["Applying the manifests"]?.[0]).toContain(
    "With kubectl, `kubectl replace --force -f runtimeclass-confidential.yaml` comes before `apply -k`",
  );
  expect(moved.Nodes).toEqual([
    "- *known* — `contrast-installer-workers`: the commands `rollout` and `uninstall` do not wait for `node-3`.",
  ]);
});

test("where an earlier version rendered what was before, it says what it cannot say, and tells the objects' changes", async () => {
  const told = sections(await summary("old", "edited"));
  expect(told["Not explained here"]).toContainEqual(
    expect.stringMatching(
      /^- \*unknown\* — Which runtimes groups get or lose, what verifiers will see, and how often containerd restarts: .*Render them once more with this version, on the branch that this goes to\.$/,
    ),
  );
  expect(Object.keys(told)).not.toContain("Restarts of containerd");
  expect(JSON.stringify(told)).not.toMatch(/Group `workers` (is new|gets|loses)/);
  expect(told["Resource by resource"]?.[0]).toContain(`RuntimeClass \`${next}\` is new`);
});

test("what somebody adds to the directory, or to an object's annotations, is shown", async () => {
  cpSync(at("first"), at("tampered"), { recursive: true });
  const file = (name: string) => join(at("tampered"), name);
  const extra = { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "extra", namespace: "default" } };
  writeFileSync(file("extra.yaml"), stringify(extra));
  writeFileSync(
    file("kustomization.yaml"),
    readFileSync(file("kustomization.yaml"), "utf8").replace("resources:\n", "resources:\n  - extra.yaml\n"),
  );
  const namespace = file("namespace-contrast-runtime-system.yaml");
  writeFileSync(namespace, readFileSync(namespace, "utf8").replace('"-2"', '"5"'));
  const resources = await lines("first", "tampered", "Resource by resource");
  expect(resources).toHaveLength(2);
  expect(resources?.[0]).toMatch(
    /Namespace `contrast-runtime-system` changes:.*argocd\.argoproj\.io\/sync-wave"\]: "5"/s,
  );
  expect(resources?.[1]).toContain("ServiceAccount `extra` is new");

  writeFileSync(file("kustomization.yaml"), "patches: []\n", { flag: "a" });
  await expect(summary("first", "tampered")).rejects.toThrow(
    /kustomization\.yaml has patches: expected .* Put it into an overlay/,
  );
});

test.each([
  [
    "a directory that is not there",
    "none",
    "first",
    /none cannot be read: no such file or directory\..* give an empty directory\.$/,
  ],
  ["what is no rendering", ".", "first", /is not empty, and has no manifests: expected a kustomization\.yaml/],
  ["two empty directories", "empty", "empty", /are both empty: there is nothing to compare\.$/],
  ["a new one of an earlier version", "first", "old", /old was rendered by an earlier version, .* render it again/],
  ["another stack's", "elsewhere", "first", /elsewhere is of stack other and .*first of stack review: give two/],
])("%s is refused", async (_, before, after, message) => {
  await expect(summary(before, after)).rejects.toThrow(message);
});
