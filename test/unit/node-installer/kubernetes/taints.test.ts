import { beforeEach, expect, test } from "vitest";
import { type Api, ApiError } from "../../../../node-installer/kubernetes/api.ts";
import { type NodeObject, readOwnNode } from "../../../../node-installer/kubernetes/node.ts";
import { liftTaint } from "../../../../node-installer/kubernetes/taints.ts";
import { type MemoryApi, memoryApi } from "../../../fakes/memory-api.ts";

/* The startup taint goes, and no other. */

const path = "/api/v1/nodes/node-1";
const taint = "example.com/not-ready";
const own = { key: taint, effect: "NoSchedule" };
const ownToo = { key: taint, value: "x", effect: "NoExecute" };
const theirs = { key: "example.com/gpu", value: "true", effect: "NoSchedule" };
const unreachable = { key: "node.kubernetes.io/unreachable", effect: "NoExecute" };

let memory: MemoryApi;
let patches: object[];
/** Called right before a patch that changes something. */
let meanwhile: () => void;

const api: Api = {
  get: () => Promise.reject(new Error("nodes have no get")),
  create: () => Promise.reject(new Error("nothing is created")),
  delete: () => Promise.reject(new Error("nothing is deleted")),
  async mergePatch<T>(url: string, patch: object) {
    if (Object.keys(patch).length > 0) {
      patches.push(patch);
      meanwhile();
    }
    const { status, body } = memory.answer("PATCH", url, JSON.parse(JSON.stringify(patch)));
    if (status >= 300) throw new ApiError(status, "Conflict", "changed");
    return JSON.parse(body) as T;
  },
};

let version = 0;
function setTaints(taints: object[] | undefined): void {
  version += 1;
  const metadata = { name: "node-1", uid: "u", resourceVersion: `${version}` };
  memory.objects.set(path, { metadata, spec: { podCIDR: "10.0.0.0/24", ...(taints && { taints }) } });
}
const spec = () => memory.objects.get(path)?.spec;
const lift = async () => liftTaint(api, await readOwnNode(api, "node-1"), taint);

beforeEach(() => {
  memory = memoryApi();
  patches = [];
  meanwhile = () => undefined;
});

test("every taint with the key goes, all others stay in their order", async () => {
  setTaints([theirs, own, unreachable, ownToo]);
  await lift();
  expect(spec()).toEqual({ podCIDR: "10.0.0.0/24", taints: [theirs, unreachable] });
});

test.each([[undefined], [[]], [[theirs]]])("nothing is written to a node with the taints %j", async (taints) => {
  setTaints(taints);
  await lift();
  expect(patches).toEqual([]);
});

test("a taint that somebody sets in between stays", async () => {
  setTaints([own]);
  meanwhile = () => {
    if (patches.length === 1) setTaints([own, unreachable]);
  };
  await lift();
  expect(spec()).toMatchObject({ taints: [unreachable] });
});

test("a node that never stops changing is an error, for the next look to try again", async () => {
  setTaints([own]);
  meanwhile = () => setTaints([own]);
  await expect(lift()).rejects.toMatchObject({ status: 409 });
  expect(patches).toHaveLength(5);
});

test("any other error is the caller's", async () => {
  const node: NodeObject = { metadata: { name: "gone", uid: "u" }, spec: { taints: [own] } };
  await expect(liftTaint(api, node, taint)).rejects.toMatchObject({ status: 404 });
});
