import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { podPolicy } from "../../workload/policy/pod-policy.ts";
import type { Json, KataRequest } from "./pod-policy/captured.ts";
import { evaluate, policyEngine } from "./pod-policy/evaluate.ts";
import { type Example, examples } from "./pod-policy/examples.ts";
import { execRequest, type RuntimeFlavour, requestsOf } from "./pod-policy/kata-requests.ts";
import { freeLeaves, leavesOf, variantsOf, withLeaf } from "./pod-policy/leaves.ts";
import { changed, containerMutations } from "./pod-policy/mutations.ts";
import { otherRequests } from "./pod-policy/other-requests.ts";
import { ownMutations } from "./pod-policy/own-mutations.ts";

let engine: string;
beforeAll(async () => {
  engine = await policyEngine();
});

const flavours: RuntimeFlavour[] = ["kata-go", "kata-rs"];
const names = ["web", "db", "batch", "model"] as const;
const policyOf = ({ input }: Example) => podPolicy(input).rego;

/** The requests of the pod's start up to the one that creates the container, and that one. */
function upTo(requests: KataRequest[], container: string): { before: KataRequest[]; create: KataRequest } {
  const at = requests.findIndex(({ kind, input }) => kind === "CreateContainerRequest" && nameOf(input) === container);
  const create = requests[at];
  if (create === undefined) throw new Error(`no container ${container}`);
  return { before: requests.slice(0, at), create };
}
function nameOf(input: KataRequest["input"]): string {
  const annotations = member(member(input, "OCI"), "Annotations");
  const name = member(annotations, "io.kubernetes.cri.container-name");
  return typeof name === "string" ? name : "sandbox";
}
function member(value: Json | undefined, key: string): Json | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? value[key] : undefined;
}
const container = ({ captured }: Example, name: string) => {
  const found = captured.containers.find(({ spec }) => spec.annotations["io.kubernetes.cri.container-name"] === name);
  if (found === undefined) throw new Error(`no container ${name}`);
  return found;
};

describe.each(flavours)("the policy of a pod of %s", (flavour) => {
  const all = examples(flavour);

  test.each(names)("allows every request of the life of %s", async (name) => {
    const requests = requestsOf(all[name].captured, flavour);
    const answers = await evaluate(engine, policyOf(all[name]), requests);
    const refused = answers.flatMap(({ allowed, broken }, index) => (allowed ? [] : [{ ...requests[index], broken }]));
    expect(refused).toEqual([]);
    expect(answers.length).toBe(requests.length);
  });

  // Both flavours' policies differ in one word, the id of a container's process.
  const containers = ownMutations.filter(([, name]) => flavour === "kata-go" || name === "server");
  test.each(containers)("denies what is changed in %s's %s, and says which condition it breaks", async (...of) => {
    const [pod, name, own] = of;
    const mutations = [...containerMutations, ...own];
    const { before, create } = upTo(requestsOf(all[pod].captured, flavour), name);
    const cases = mutations.map(([, , change]) => changed(create, change));
    const answers = (await evaluate(engine, policyOf(all[pod]), before, cases)).slice(before.length);
    const shown = mutations.map(([what], index) => [what, answers[index]?.allowed, answers[index]?.broken]);
    const expected = mutations.map(([what, broken]) => [what, false, expect.arrayContaining([broken])]);
    expect(shown).toEqual(expected);
    expect(mutations.length).toBeGreaterThan(60);
  });

  test("denies every other request, and those that are not as the pod's", async () => {
    const requests = requestsOf(all.web.captured, flavour);
    const started = requests.slice(
      0,
      requests.findIndex(({ kind }) => kind === "GetOOMEventRequest"),
    );
    const { id, spec } = container(all.web, "server");
    const others = otherRequests(started, id, spec);
    const asked = others.map(([, request]) => request);
    const answers = (await evaluate(engine, policyOf(all.web), started, asked)).slice(started.length);
    expect(others.filter((_, index) => answers[index]?.allowed).map(([what]) => what)).toEqual([]);
  });
});

describe("the policy of a pod", () => {
  const all = examples("kata-go");
  const { web, batch } = all;
  const requests = requestsOf(web.captured, "kata-go");
  const started = requests.slice(
    0,
    requests.findIndex(({ kind }) => kind === "GetOOMEventRequest"),
  );
  const server = container(web, "server");
  const ask = async (rego: string, ...asked: KataRequest[]) =>
    (await evaluate(engine, rego, started, asked)).slice(started.length).map(({ allowed }) => allowed);

  test("allows the commands of the container's own probes and hooks, and no others", async () => {
    const probe = execRequest(server.id, server.spec, ["cat", "/work/go"]);
    const hook = execRequest(server.id, server.spec, ["sh", "-c", "sleep 0"]);
    const shell = execRequest(server.id, server.spec, ["sh"], true);
    const inOther = execRequest(container(web, "log").id, container(web, "log").spec, ["cat", "/work/go"]);
    expect(await ask(policyOf(web), probe, hook, shell, inOther)).toEqual([true, true, false, false]);
  });

  test("allows further commands and logs to whoever says so, exactly", async () => {
    const { rego } = podPolicy({ ...web.input, allow: { exec: [["sh"]], logs: true } });
    const shell = execRequest(server.id, server.spec, ["sh"], true);
    const other = execRequest(server.id, server.spec, ["sh", "-c", "id"], true);
    const inSandbox = execRequest(web.captured.containers[0]?.id ?? "", server.spec, ["sh"]);
    const logs = { kind: "ReadStreamRequest", input: { container_id: server.id, exec_id: server.id, len: 100 } };
    expect(await ask(rego, shell, other, inSandbox, logs)).toEqual([true, false, false, true]);
    expect(await ask(policyOf(web), logs)).toEqual([false]);
  });

  test("gives no container's id to another one, not even after the first has ended", async () => {
    const { before, create } = upTo(requests, "log");
    const removed = { kind: "RemoveContainerRequest", input: { container_id: server.id, timeout: 0 } };
    const id = create.input.container_id;
    const reused: KataRequest = JSON.parse(JSON.stringify(create).replaceAll(String(id), server.id));
    const answers = await evaluate(engine, policyOf(web), [...before, removed, reused]);
    expect(answers.at(-1)).toMatchObject({ allowed: false, broken: ["container_id"] });
  });

  test("gives a volume's disk to no other volume, and one volume no two disks", async () => {
    const { before, create } = upTo(requests, "log");
    const elsewhere: KataRequest = JSON.parse(
      JSON.stringify(create)
        .replaceAll(Buffer.from("0:0").toString("base64"), Buffer.from("0:7").toString("base64"))
        .replaceAll('"0:0"', '"0:7"'),
    );
    const answers = await evaluate(engine, policyOf(web), [...before, elsewhere]);
    expect(answers.at(-1)).toMatchObject({ allowed: false, broken: ["disks"] });
  });

  test("lets no mount hide an earlier one, also if the template writes it with a slash at its end", async () => {
    const moved = (text: string): typeof web => JSON.parse(text.replaceAll('"/logs"', '"/etc/"'));
    const elsewhere = moved(JSON.stringify(web));
    const { before, create } = upTo(requestsOf(elsewhere.captured, "kata-go"), "log");
    const place = (at: "first" | "last") =>
      changed(create, ({ OCI }) => {
        const others = OCI.Mounts.filter(({ destination }) => destination !== "/etc/");
        const own = OCI.Mounts.filter(({ destination }) => destination === "/etc/");
        OCI.Mounts = at === "first" ? [...own, ...others] : [...others, ...own];
      });
    const answers = await evaluate(engine, policyOf(elsewhere), before, [place("first"), place("last")]);
    expect(answers.slice(-2)).toMatchObject([{ allowed: true }, { allowed: false, broken: ["mounts"] }]);
  });

  test("allows a second sandbox to no one", async () => {
    const create = requests.find(({ kind }) => kind === "CreateSandboxRequest");
    if (create === undefined) throw new Error("no sandbox");
    const answers = await evaluate(engine, policyOf(web), [create, create]);
    expect(answers.map(({ allowed }) => allowed)).toEqual([true, false]);
  });

  test("makes no pod in a sandbox with another pod's host name", async () => {
    const db = requestsOf(all.db.captured, "kata-go").map((request) =>
      request.kind === "CreateSandboxRequest" ? { ...request, input: { ...request.input, hostname: "db-1" } } : request,
    );
    for (const name of ["sandbox", "db"]) {
      const { before, create } = upTo(db, name);
      const answers = await evaluate(engine, policyOf(all.db), [...before, create]);
      expect(answers.at(-1)).toMatchObject({ allowed: false, broken: expect.arrayContaining(["hostname"]) });
    }
  });

  test("is not another pod's", async () => {
    const answers = await evaluate(engine, policyOf(batch), requests);
    const created = answers.filter((_, index) => requests[index]?.kind === "CreateContainerRequest");
    expect(created.map(({ allowed }) => allowed)).toEqual(created.map(() => false));
  });

  test("of Contrast's Kata knows its images without descriptions, and emptyDirs that all containers share", async () => {
    const contrast = examples("contrast-go");
    for (const name of ["web", "db", "batch"] as const) {
      const asked = requestsOf(contrast[name].captured, "contrast-go");
      const answers = await evaluate(engine, policyOf(contrast[name]), asked);
      expect(asked.filter((_, index) => !answers[index]?.allowed)).toEqual([]);
    }
    const asked = requestsOf(contrast.web.captured, "contrast-go");
    const { before, create } = upTo(asked, "log");
    const directory = asked.find(({ input }) => String(input.path).includes("/sandbox-"));
    if (directory === undefined) throw new Error("no directory");
    const file = { ...directory.input, path: `${directory.input.path}/x`, file_type: "Regular", file_mode: 0o100644 };
    const mount = (source: (own: string) => string) =>
      changed(create, ({ OCI }) => {
        const found = OCI.Mounts.find(({ destination }) => destination === "/logs");
        if (found !== undefined) found.source = source(found.source);
      });
    const described = changed(create, ({ storages }) => storages[0]?.driver_options.push("image_guest_pull={}"));
    const cases = [
      { ...directory, input: file },
      { ...directory, input: { ...directory.input, path: `${directory.input.path}-x` } },
      { ...directory, input: { ...directory.input, file_type: "Symlink", symlink_target: "/" } },
      mount((own) => own.replace("5555", "6666")),
      mount((own) => own.replace("work", "memory")),
      mount(() => "/run/kata-containers/sandbox/storage/MDow"),
      described,
      create,
    ];
    const answers = (await evaluate(engine, policyOf(contrast.web), before, cases)).slice(before.length);
    expect(answers.map(({ allowed }) => allowed)).toEqual([...cases.slice(1).map(() => false), true]);
  });

  test("knows that Kata 4.0 says GPUs of the sandbox's own container, too, and 4.1 does not", async () => {
    const { captured, input } = all.model;
    const of = (kataVersion: string) => podPolicy({ ...input, runtime: { ...input.runtime, kataVersion } }).rego;
    const asked = requestsOf(captured, "kata-go", true);
    const denied = async (rego: string) =>
      (await evaluate(engine, rego, asked)).find(({ allowed }) => !allowed)?.broken ?? [];
    expect(await denied(of("4.0.0"))).toEqual([]);
    expect(await denied(of("4.1.0"))).toEqual(["gpus"]);
  });

  test("has a rule for every request of Kata's protocol", async () => {
    const { rego } = podPolicy(web.input);
    const messages: string[] = JSON.parse(
      readFileSync(new URL("./pod-policy/agent-requests.json", import.meta.url), "utf8"),
    );
    expect(messages.filter((message) => !rego.includes(`default ${message} := `))).toEqual([]);
    const answers = await evaluate(
      engine,
      rego,
      [],
      messages.map((kind) => ({ kind, input: {} })),
    );
    const allowed = messages.filter((_, index) => answers[index]?.allowed);
    expect(allowed.toSorted()).toEqual([
      "DestroySandboxRequest",
      "GetOOMEventRequest",
      "GuestDetailsRequest",
      "OnlineCPUMemRequest",
      "RemoveStaleVirtiofsShareMountsRequest",
    ]);
  });

  test.each([
    ["web", "server"],
    ["web", "sandbox"],
    ["db", "db"],
    ["batch", "helper"],
    ["model", "work"],
  ] as const)("of %s, no leaf of the request for %s is free that is not named, with its reason", async (pod, name) => {
    const { before, create } = upTo(requestsOf(all[pod].captured, "kata-go"), name);
    const variants = leavesOf(create.input).flatMap(({ path, value }) =>
      variantsOf(value).map((other) => ({
        path,
        value,
        other,
        request: { ...create, input: withLeaf(create.input, path, other) },
      })),
    );
    const asked = variants.map(({ request }) => request);
    const answers = (await evaluate(engine, policyOf(all[pod]), before, asked, false)).slice(before.length);
    const free = freeLeaves(name);
    const allowed = variants
      .filter((_, index) => answers[index]?.allowed)
      .map(({ path, value, other }) => ({ path: path.join("."), value, other }));
    const names =
      ({ leaf, like }: (typeof free)[number]) =>
      (one: (typeof allowed)[number]) =>
        leaf.test(one.path) && like?.(one.value, one.other) !== false;
    expect(allowed.filter((one) => !free.some((named) => names(named)(one)))).toEqual([]);
    expect(free.filter((named) => !allowed.some(names(named))).map(({ leaf }) => leaf)).toEqual([]);
    expect(variants.length).toBeGreaterThan(150);
  });
});
