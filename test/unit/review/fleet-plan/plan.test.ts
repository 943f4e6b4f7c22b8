import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { deriveRuntime } from "../../../../measure/runtime.ts";
import { takeSnapshot } from "../../../../node-installer/commands/snapshot.ts";
import { planFleet } from "../../../../review/fleet-plan/plan.ts";
import { fleetSentence, noticeSentence, outcomeSentence } from "../../../../review/fleet-plan/sentences.ts";
import { main } from "../../../../tools/cli/main.ts";
import type { MemoryHost } from "../../../fakes/memory-host.ts";
import { adminsFile } from "../../../fakes/memory-node.ts";
import { nodeOf, v3 } from "../../node-installer/containerd/nodes.ts";
import { fixtureManifest } from "../../runtime/fixtures.ts";
import { bundleOf, likeness, specOf } from "../bundles.ts";
import { document, groupSteps } from "../documents.ts";

const one = specOf("00000001");
const two = specOf("00000001", "00000002");
const handlers = two.runtimes.map(({ handler }) => handler);
const aDirectory = { kind: "directory", uid: 0, gid: 0, ino: 9n, mtimeNs: 9n } as const;

describe("the fleet plan", () => {
  test("groups nodes by outcome and reason, refused first", async () => {
    const fresh = await bundleOf({});
    const installed = await bundleOf({ installed: one });
    const old = await bundleOf({
      change: (node) =>
        node.host.programs.set("containerd", () => ({
          stdout: "containerd github.com/containerd/containerd 1.6.8 x\n",
        })),
    });
    const bundles = [0, 1, 2].map((number) => likeness(fresh, number));
    bundles.push(likeness(installed, 3), likeness(installed, 4), likeness(old, 5));
    const plan = await planFleet(one, bundles);
    expect(plan.outcomes.map(({ outcome, nodes }) => [outcome, nodes])).toEqual([
      ["refused", ["node-5"]],
      ["restart", ["node-0", "node-1", "node-2"]],
      ["unchanged", ["node-3", "node-4"]],
    ]);
    expect(fleetSentence(plan)).toBe("6 nodes: 1 is refused, 3 restart containerd, 2 are unchanged.");
    expect(outcomeSentence(plan.outcomes[0] as never)).toMatch(
      /^1 node is refused \(`[a-z-]+`: .*1\.6.*\): `node-5`\.$/,
    );
  });

  test("a runtime that is added restarts containerd where it is missing", async () => {
    const [before, after] = await Promise.all([bundleOf({ installed: one }), bundleOf({ installed: two })]);
    const { outcomes } = await planFleet(two, [likeness(before, 1), likeness(after, 2)]);
    expect(outcomes.map(({ outcome, nodes }) => [outcome, nodes])).toEqual([
      ["restart", ["node-1"]],
      ["unchanged", ["node-2"]],
    ]);
  });

  test("a runtime that is removed is named where pods still use it", async () => {
    const idle = await bundleOf({ installed: two });
    const busy = await bundleOf({
      installed: two,
      change: (node) => node.sandboxes.push({ handler: handlers[1] ?? "", name: "default/web" }),
    });
    const { outcomes } = await planFleet(one, [likeness(idle, 1), likeness(busy, 2)]);
    expect(outcomes).toMatchObject([
      { outcome: "restart", reason: "", nodes: ["node-1"] },
      { outcome: "change", reason: `pods still use ${handlers[1]}`, nodes: ["node-2"] },
    ]);
  });

  test("a payload file that somebody changed is not taken for the one of the journal", async () => {
    const touched = await bundleOf({
      installed: one,
      change: (node) =>
        node.host.put(`/opt/edgeless/${handlers[0]}/share/kata-kernel`, "kernal", { mode: 0o644, uid: 0, gid: 0 }),
    });
    const intact = await bundleOf({ installed: one });
    const { outcomes } = await planFleet(one, [likeness(touched, 1), likeness(intact, 2)]);
    expect(outcomes.map(({ outcome, nodes }) => [outcome, nodes])).toEqual([
      ["change", ["node-1"]],
      ["unchanged", ["node-2"]],
    ]);
  });

  test("a node of another group, one whose disk is full and one whose host does not fit are refused", async () => {
    const other = await bundleOf({ installed: { ...one, group: "others" } });
    const full = await bundleOf({
      change: (node) => {
        node.host.free = { bytes: 1e6, inodes: 1e6 };
      },
    });
    const { outcomes } = await planFleet(one, [likeness(other, 1), likeness(full, 2), likeness(await bundleOf({}), 3)]);
    expect(outcomes.map(({ outcome, code, nodes }) => [outcome, code, nodes])).toEqual([
      ["refused", "other-group", ["node-1"]],
      ["refused", "no-space", ["node-2"]],
      ["restart", "", ["node-3"]],
    ]);
    const snp = {
      ...one,
      runtimes: one.runtimes.map((runtime) => ({
        ...runtime,
        host: { tee: "snp" as const, virtualization: "kvm" as const, gpu: false, guestPull: false },
      })),
    };
    const [unfit] = (await planFleet(snp, [await bundleOf({})])).outcomes;
    expect(unfit).toMatchObject({ outcome: "refused", nodes: ["node-1"] });
    expect(unfit?.code).toContain("virtualization-off");
  });

  test("a node where others can write to our directory is refused, also to a spec that its bundle knew nothing of", async () => {
    const writable = async (kind: Parameters<typeof bundleOf>[0]) =>
      bundleOf({
        ...kind,
        change: (node) => node.host.nodes.set("/opt/edgeless", { ...aDirectory, mode: 0o777 }),
      });
    const bundles = [
      await writable({}),
      likeness(await writable({ installed: one }), 2),
      likeness(await writable({ installed: { ...one, runtimes: [] } }), 3),
    ];
    for (const spec of [one, two]) {
      const { outcomes } = await planFleet(spec, bundles);
      expect(outcomes).toMatchObject([
        { outcome: "refused", code: "not-roots", nodes: ["node-1", "node-2", "node-3"] },
      ]);
      expect(outcomes[0]?.reason).toContain("/opt/edgeless belongs to 0:0 with mode 0777");
    }
  });

  test("a link above our directory, which is the administrators', is none in the directories of a new runtime", async () => {
    const linked = await bundleOf({ change: ({ host }) => host.link("/opt", "/var/opt") });
    const { outcomes } = await planFleet(two, [linked]);
    expect(outcomes.map(({ outcome, nodes }) => [outcome, nodes])).toEqual([["restart", ["node-1"]]]);
  });

  test("a file with inline tables is refused in the installer's own words", async () => {
    const inline = await bundleOf({ file: 'version = 3\nplugins = { "io.containerd.cri.v1.runtime" = { } }\n' });
    const { outcomes } = await planFleet(one, [inline]);
    expect(outcomes).toMatchObject([{ outcome: "refused", nodes: ["node-1"] }]);
  });

  test("nothing that a node says of itself is Markdown in the comment", () => {
    const link = "` ![](https://example.com/)\n# Title";
    const sentence = outcomeSentence({ outcome: "refused", code: link, reason: `It says ${link}.`, nodes: [link] });
    expect(sentence.replaceAll(/`[^`]*`/g, "")).toBe("1 node is refused (: ): .");
    expect(sentence).not.toContain("\n");
  });

  test("bundles that cannot be read are an outcome of their own, and stop no plan", async () => {
    const good = await bundleOf({});
    const newer = { file: "node-1.json", text: good.text.replace('"schemaVersion": 2', '"schemaVersion": 9') };
    // As another program writes it again, which the recognition of equal nodes does not read: no other may get its plan.
    const { takenAt, ...rest } = JSON.parse(good.text);
    const rewritten = { file: "bundles/node-6.json", text: JSON.stringify({ ...rest, takenAt }) };
    const bundles = [
      rewritten,
      { file: "bundles/node-7.json", text: "{}" },
      { file: "bundles/node-8.json", text: "{" },
      newer,
    ];
    const plan = await planFleet(one, [...bundles, likeness(good, 2)]);
    expect(fleetSentence(plan)).toBe("5 nodes: 4 cannot be planned, 1 restarts containerd.");
    expect(plan.outcomes.map(({ outcome, nodes }) => [outcome, nodes])).toEqual([
      ["unknown", ["node-1", "node-6", "node-7", "node-8"]],
      ["restart", ["node-2"]],
    ]);
  });

  test("nodes that leave the group do not count, and those without a bundle are named", async () => {
    const bundles = [1, 2].map(async (number) => likeness(await bundleOf({}), number));
    const plan = await planFleet(one, await Promise.all(bundles), ["node-2", "node-4", "node-3"]);
    expect(plan.outcomes.map(({ nodes }) => nodes)).toEqual([["node-2"]]);
    expect(fleetSentence(plan)).toBe(
      "1 node: 1 restarts containerd. There is no bundle of 2 more: `node-3`, `node-4`.",
    );
  });

  test("what others changed and nobody loaded refuses an installation there, or is loaded where the stack allows it", async () => {
    const touched = (kind: Parameters<typeof bundleOf>[0]) =>
      bundleOf({
        ...kind,
        change: (node) => {
          node.host.time += 60_000;
          node.host.put("/etc/containerd/config.toml", `${adminsFile}# a secret of theirs\n`);
        },
      });
    const bundles = [await touched({}), likeness(await bundleOf({}), 2)];
    expect(bundles[0]?.text).toContain('"pending": true');
    const { outcomes } = await planFleet(one, bundles);
    expect(outcomes).toMatchObject([
      { outcome: "refused", code: "pending-changes", nodes: ["node-1"] },
      { outcome: "restart", code: "", nodes: ["node-2"] },
    ]);
    expect(outcomeSentence(outcomes[0] as never)).toMatch(
      /^1 node is refused \(`pending-changes`: `Others have changed .*restart containerd\.service first.*`\): `node-1`\.$/,
    );
    const allowed = await planFleet({ ...one, loadPendingChanges: true }, bundles);
    expect(allowed.outcomes).toMatchObject([
      { outcome: "restart", reason: "the restart also loads what others have changed there", nodes: ["node-1"] },
      { outcome: "restart", reason: "", nodes: ["node-2"] },
    ]);
  });

  test("what a node's owner must know is said once, with the nodes", async () => {
    const k0s = { ...one, distribution: { name: "k0s" as const } };
    const root = {
      "/etc/k0s/containerd.toml": `# k0s_managed=true\nimports = ["/etc/k0s/containerd.d/*.toml"]\n${v3}`,
    };
    const bundleOn = async (node: MemoryHost) => ({
      file: "",
      text: JSON.stringify(await takeSnapshot(node, k0s, "node-1"), null, 1),
    });
    const [old, recent] = [
      await bundleOn(nodeOf("k0s", { version: "1.7.28" })),
      await bundleOn(nodeOf("k0s", { files: root })),
    ];
    const plan = await planFleet(k0s, [likeness(old, 0), likeness(old, 1), likeness(recent, 2)]);
    expect(plan.outcomes.flatMap(({ nodes }) => nodes)).toHaveLength(3);
    expect(plan.notices.map(({ nodes }) => nodes)).toEqual([["node-0", "node-1"]]);
    expect(noticeSentence(plan.notices[0] as never)).toMatch(
      /^To know of 2 nodes \(`node-0`, `node-1`\): `k0s up to 1\.35 takes .*new form\.`$/,
    );
  });

  test("no bundle at all is said", async () => {
    expect(fleetSentence(await planFleet(one, []))).toBe("0 nodes: no bundle of any was given.");
  });

  test("the plan does not depend on the order of bundles, nor on which node of a kind comes first", async () => {
    const kinds = [
      await bundleOf({}),
      await bundleOf({ installed: one }),
      await bundleOf({ file: `# another\n${adminsFile}` }),
    ];
    const bundles = kinds.flatMap((kind, index) => [0, 1, 2].map((number) => likeness(kind, index * 3 + number)));
    expect(await planFleet(one, bundles)).toEqual(await planFleet(one, bundles.toReversed()));
  });
});

test("the groups of a preview have their bundles in directories of their own; a new one has none yet", async () => {
  const directory = mkdtempSync(join(tmpdir(), "fleet-"));
  const said: string[] = [];
  const log = vi.spyOn(console, "log").mockImplementation((line) => void said.push(line));
  try {
    const [preview, bundles] = [join(directory, "preview.json"), join(directory, "bundles")];
    const runtimes = [deriveRuntime({ platform: "local", manifest: fixtureManifest("local") })];
    const steps = ["new", "old"].flatMap((group) => groupSteps(undefined, { group, runtimes }));
    writeFileSync(preview, document(steps));
    mkdirSync(join(bundles, "old"), { recursive: true });
    writeFileSync(join(bundles, "old", "node-1.json"), (await bundleOf({})).text);
    expect(await main(["review", "fleet", "--preview", preview, "--bundles", bundles])).toBe(0);
    expect(said[0]).toBe("new: 0 nodes: no bundle of any was given.");
    expect(said[1]).toBe("old: 1 node: 1 restarts containerd.");
  } finally {
    log.mockRestore();
    rmSync(directory, { recursive: true });
  }
});
