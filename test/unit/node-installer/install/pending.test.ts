import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { planFor } from "../../../../node-installer/install/dry-run.ts";
import { withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { messageOf, refusalOf } from "./outcomes.ts";

/** The daemon runs with what it has loaded; somebody changes what is on disk, and does not restart it. */

let node: MemoryNode;
let spec: InstallSpec;
beforeEach(() => {
  node = new MemoryNode();
  spec = node.spec([node.runtime("00000001")]);
});
afterEach(() => node.close());

const cri = 'plugins."io.containerd.cri.v1.runtime"';
const gvisor = `[${cri}.containerd.runtimes.gvisor]\n  runtime_type = "io.containerd.runsc.v1"\n`;
const loaded = (text: string) => {
  node.host.put(configPath, text);
  node.start();
};
const onDisk = (text: string) => {
  node.host.time += 60_000;
  node.host.put(configPath, text);
};
const allowed = () => ({ ...spec, loadPendingChanges: true });

const cases: [name: string, arrange: () => void, said: RegExp][] = [
  [
    "options of another runtime",
    () => {
      loaded(adminsFile);
      onDisk(`${adminsFile}[${cri}.containerd.runtimes.runc.options]\n  SystemdCgroup = true\n`);
    },
    /options of handler runc is \{"SystemdCgroup":true\} instead of \{\}/,
  ],
  [
    "another runtime that is gone",
    () => {
      loaded(`${adminsFile}${gvisor}`);
      onDisk(adminsFile);
    },
    /handler gvisor is not served/,
  ],
  ["another runtime that is new", () => onDisk(`${adminsFile}${gvisor}`), /handler gvisor is new/],
  [
    "another default runtime",
    () => onDisk(`${adminsFile}[${cri}.containerd]\n  default_runtime_name = "runc"\n`),
    /default runtime is "runc"/,
  ],
  [
    "something that is no runtime",
    () => onDisk(`${adminsFile}[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "native"\n`),
    /config\.toml changed after it/,
  ],
  [
    "an upgraded program",
    () => {
      node.binary = "2.4.2";
    },
    /runs containerd 2\.1\.4, but \/usr\/bin\/containerd is 2\.4\.2 now/,
  ],
];

describe.each(cases)("%s, not loaded yet", (_, arrange, said) => {
  beforeEach(arrange);

  test("is refused before anything is changed, is said by plan, and is gone after the advised restart", async () => {
    const [file, { starts }] = [node.host.text(configPath), node];
    const message = await messageOf(converge(node.environment(spec)));
    expect(message).toMatch(said);
    expect(message).toContain("restart containerd.service first");
    expect([node.host.text(configPath), node.starts]).toEqual([file, starts]);
    expect((await planFor(node.host, node.daemon(spec), spec)).pending.join()).toMatch(said);

    node.start();
    expect((await planFor(node.host, node.daemon(spec), spec)).pending).toEqual([]);
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
  });

  test("is loaded if the stack allows it, at the cost of one restart and no rollback", async () => {
    const { starts } = node;
    await converge(node.environment(allowed()));
    expect(node.served).toHaveLength(1);
    expect(node.starts - starts).toBe(1);
  });
});

test.each([false, true])(
  "what would break the CRI is refused, whether loading is allowed (%s) or not",
  async (allow) => {
    const registry = 'plugins."io.containerd.cri.v1.images".registry';
    onDisk(
      `${adminsFile}[${registry}]\n  config_path = "/etc/x"\n[${registry}.mirrors."a"]\n  endpoint = ["https://a"]\n`,
    );
    const { starts } = node;
    const environment = node.environment(allow ? allowed() : spec);
    expect(await messageOf(converge(environment))).toMatch(
      /mirrors and registry\.config_path are both set.*Correct it/,
    );
    expect(node.starts).toBe(starts);
    expect(node.served).toEqual([]);
  },
);

test("a file with a time that has not come yet is judged by what is in it", async () => {
  const yearMs = 365 * 86_400_000;
  const inAYear = (text: string) => {
    node.host.time += yearMs;
    node.host.put(configPath, text);
    node.host.time -= yearMs;
  };
  inAYear(`${adminsFile}${gvisor}`);
  expect(await messageOf(converge(node.environment(spec)))).toMatch(/handler gvisor is new/);
  node.start();
  await converge(node.environment(spec));
  expect(node.served).toHaveLength(1);
});

test("a comment, or our own block that somebody dropped, is no change that has to be loaded", async () => {
  await converge(node.environment(spec));
  const [file = "", { starts }] = [node.host.text(configPath), node];
  onDisk(`# a comment\n${file}`);
  expect((await converge(node.environment(spec))).changed).toBe(false);
  onDisk(`# a comment\n${adminsFile}`);
  await converge(node.environment(spec));
  expect(node.served).toHaveLength(1);
  expect(node.starts - starts).toBe(1);
});

test("a node that serves our handler keeps it while a foreign change waits for a restart", async () => {
  loaded(`${adminsFile}${gvisor}`);
  await converge(node.environment(spec));
  const { starts } = node;
  onDisk(adminsFile);
  expect(await refusalOf(converge(node.environment(spec)))).toBe("pending-changes");
  expect(node.served).toHaveLength(1);
  expect(node.starts).toBe(starts);
});

describe("while a node waits for its turn", () => {
  const waiting = (change: () => void) => {
    const cluster = withoutKubernetes(() => node.host.now());
    cluster.tickets = { ...cluster.tickets };
    let asked = 0;
    cluster.tickets.acquire = async () => {
      asked += 1;
      if (asked === 1) return { held: false, holders: ["another"] };
      if (asked === 2) change();
      return { held: true };
    };
    return node.environment(spec, cluster);
  };

  test("a runtime is removed and containerd restarted: the change is planned anew and passes", async () => {
    loaded(`${adminsFile}${gvisor}`);
    const { starts } = node;
    await converge(waiting(() => loaded(adminsFile)));
    expect(node.served).toHaveLength(1);
    expect(node.starts - starts).toBe(2);
  });

  test("a file is edited and not loaded: refused", async () => {
    expect(await refusalOf(converge(waiting(() => onDisk(`${adminsFile}${gvisor}`))))).toBe("pending-changes");
    expect(node.starts).toBe(1);
  });

  test("the CRI dies: refused as such", async () => {
    const dies = () => {
      node.breaks.add("runc");
      node.start();
    };
    expect(await refusalOf(converge(waiting(dies)))).toBe("cri-broken-before");
    expect(node.host.text(configPath)).toBe(adminsFile);
  });

  test("a pod begins to use what is to be removed: it stays", async () => {
    await converge(node.environment(spec));
    const { handler } = spec.runtimes[0] ?? { handler: "" };
    const other = node.spec([node.runtime("00000002")]);
    const uses = () => {
      node.sandboxes = [{ handler, name: "shop/web" }];
    };
    const outcome = await converge({ ...waiting(uses), spec: other });
    expect(outcome.blocked).toEqual([{ handler, pods: ["shop/web"] }]);
    expect(node.served).toContain(handler);
  });
});

test("what somebody changes between our edit and our restart costs no rollback", async () => {
  loaded(`${adminsFile}${gvisor}`);
  let done = false;
  node.host.onPoint = (point, when) => {
    if (done || when !== "after" || point !== `rename ${configPath}`) return;
    done = true;
    node.host.put(configPath, (node.host.text(configPath) ?? "").replace(gvisor, ""));
  };
  await converge(node.environment(spec));
  expect(node.served).toHaveLength(1);
});
