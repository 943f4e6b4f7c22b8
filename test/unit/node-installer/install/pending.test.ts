import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { converge } from "../../../../node-installer/install/converge.ts";
import { planFor } from "../../../../node-installer/install/dry-run.ts";
import { withoutKubernetes } from "../../../../node-installer/kubernetes/connect.ts";
import type { InstallSpec } from "../../../../runtime/spec.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";
import { type NodeShape, nodeShapes } from "../../../fakes/node-shapes.ts";
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
const images = '[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "native"\n';
const imported = "/etc/containerd/conf.d/images.toml";
/** The file that the administrator's imports. */
const loadedImport = (text: string) => {
  node.host.put(imported, `version = 3\n${text}`);
  loaded(adminsFile.replace("\n", '\nimports = ["conf.d/*.toml"]\n'));
  node.host.time += 60_000;
};
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
  ["something that is no runtime", () => onDisk(`${adminsFile}${images}`), /config\.toml changed after it/],
  [
    "something that is no runtime, in a file with the time of the one that was copied over it",
    () => {
      onDisk(`${adminsFile}${images}`);
      const copied = node.host.nodes.get(configPath);
      if (copied === undefined) throw new Error("no file");
      node.host.nodes.set(configPath, { ...copied, mtimeNs: 0n, ctimeNs: copied.mtimeNs });
    },
    /may not have loaded .*config\.toml was written before that, but its owner, mode or name changed after it, or an older/,
  ],
  [
    "something that is no runtime, beside a file that only got another owner",
    () => {
      loadedImport("");
      node.host.put(imported, `version = 3\n${images}`);
      const file = node.host.nodes.get(configPath);
      if (file?.kind !== "file") throw new Error("no file");
      node.host.nodes.set(configPath, { ...file, uid: 1000, ctimeNs: BigInt(node.host.time) * 1_000_000n });
    },
    /has not loaded .*config\.toml was written before that.*conf\.d\/images\.toml changed after it/,
  ],
  [
    "something that is no runtime, in an imported file",
    () => {
      loadedImport("");
      node.host.put(imported, `version = 3\n${images}`);
    },
    /conf\.d\/images\.toml changed after it/,
  ],
  [
    "something that is no runtime, in an older file to which the link leads now",
    () => {
      node.host.put("/data/new.toml", `${adminsFile}${images}`);
      node.host.put("/data/old.toml", adminsFile);
      node.host.link(configPath, "/data/old.toml");
      node.host.time += 60_000;
      node.start();
      node.host.time += 60_000;
      node.host.link(configPath, "/data/new.toml");
    },
    /etc\/containerd\/config\.toml is a link that was made after it/,
  ],
  [
    "an imported file that is gone",
    () => {
      loadedImport(images);
      node.host.delete(imported);
    },
    /conf\.d changed after it/,
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
      if (asked === 1) return { held: false, askAgainMs: 1_000 };
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

  test("what containerd says of the new file is asked again: it may import something else by now", async () => {
    const refuses = () => {
      node.refuses = (text) => (text.includes("contrast-") ? "a conflict with what is imported" : undefined);
    };
    expect(await messageOf(converge(waiting(refuses)))).toContain("a conflict with what is imported");
    expect([node.host.text(configPath), node.starts]).toEqual([adminsFile, 1]);
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

describe.each(["k3s", "rke2"])("where %s renders the file at each start, and our tables are in a drop-in", (name) => {
  const folder = `/var/lib/rancher/${name}/agent/etc/containerd`;
  const template = `${folder}/config-v3.toml.tmpl`;
  const base = '{{ template "base" . }}\n';
  const bad = `${base}[${cri}.containerd.runtimes.bad]\n  runtime_type = "io.containerd.runc.v2"\n`;
  beforeEach(() => {
    node.close();
    node = new MemoryNode(shapeOf(`${name}, drop-in`));
    spec = node.spec([node.runtime("00000001")]);
    node.host.time += 60_000;
  });

  test.each(["installed for the first time", "changed", "uninstalled"])(
    "a template that would break the CRI does not become ours to load when runtimes are %s",
    async (what) => {
      if (what !== "installed for the first time") await converge(node.environment(spec));
      if (what === "changed") spec = node.spec([node.runtime("00000002")]);
      if (what === "uninstalled") spec = node.spec([]);
      node.host.time += 60_000;
      const [served, { starts }] = [node.served, node];
      node.host.put(template, bad);
      node.breaks.add("bad");
      expect((await planFor(node.host, node.daemon(spec), spec)).pending.join()).toContain(`${template} changed`);
      const message = await messageOf(converge(node.environment(spec)));
      expect(message).toContain(`restart ${name}-agent.service first`);
      expect([node.served, node.starts]).toEqual([served, starts]);

      node.host.put(template, base);
      node.start();
      await converge(node.environment(spec));
      expect(node.served).toEqual(spec.runtimes.map(({ handler }) => handler));
    },
  );

  test.each([
    `${folder}/config.toml.tmpl`,
    `/etc/rancher/${name}/config.yaml`,
    `/etc/rancher/${name}/config.yaml.d/10-registries.yaml`,
    `/etc/rancher/${name}/registries.yaml`,
  ])("%s is read by the next start, too", async (path) => {
    node.host.put(path, "# changed\n");
    expect(await messageOf(converge(node.environment(spec)))).toContain(`${path} changed after it`);
    node.start();
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
  });

  test("a program that gives its configuration the same mode again changes nothing", async () => {
    const path = `/etc/rancher/${name}/config.yaml.d/50-rancher.yaml`;
    node.host.put(path, "# as it was\n");
    const file = node.host.nodes.get(path);
    if (file === undefined) throw new Error("no file");
    node.start();
    node.host.time += 60_000;
    const ctimeNs = BigInt(node.host.time) * 1_000_000n;
    node.host.nodes.set(path, { ...file, ctimeNs });
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
  });

  test("a file that an argument names is, and the usual one is not", async () => {
    const unit = `/etc/systemd/system/${name}-agent.service`;
    const options = "--config /etc/own.yaml --private-registry=/etc/own-registries.yaml";
    node.host.put(unit, `[Service]\nExecStart=/usr/local/bin/${name} agent ${options}\nKillMode=process\n`);
    for (const path of ["/etc/own.yaml", "/etc/own-registries.yaml", `/etc/rancher/${name}/registries.yaml`])
      node.host.put(path, "# changed\n");
    const message = await messageOf(converge(node.environment(spec)));
    expect(message).toContain("(/etc/own.yaml changed after it; /etc/own-registries.yaml changed after it)");
  });

  test("what the installer writes and removes there is no change of somebody's", async () => {
    for (const digits of ["00000001", "00000002", "00000003", "00000004"]) {
      spec = node.spec([node.runtime(digits)]);
      await converge(node.environment(spec));
      node.host.time += 60_000;
    }
    expect(node.starts).toBe(5);
    await converge(node.environment(node.spec([])));
    expect(node.served).toEqual([]);
  });
});

const microk8s = "/var/snap/microk8s/current";
describe.each([
  ["MicroK8s", `${microk8s}/args/containerd`],
  ["MicroK8s", `${microk8s}/args/containerd-env`],
  ["MicroK8s", `${microk8s}/args/containerd-template.toml`],
  ["MicroK8s", `${microk8s}/var/lock/gpu`],
  ["Canonical's k8s snap", "/var/snap/k8s/common/args/containerd"],
])("where %s starts containerd with what %s says", (name, path) => {
  beforeEach(() => {
    node.close();
    node = new MemoryNode(shapeOf(name));
    spec = node.spec([node.runtime("00000001")]);
    node.host.put(path, `${node.host.text(path) ?? ""}\n`);
    node.start();
    node.host.time += 60_000;
  });

  test("a change of it that no start has read is refused, and no more after one", async () => {
    const { starts } = node;
    node.host.put(path, `${node.host.text(path)}# another line\n`);
    const message = await messageOf(converge(node.environment(spec)));
    expect(message).toContain(`${path} changed after it`);
    expect(message).toContain(`restart ${node.shape.unit} first`);
    expect(node.starts).toBe(starts);
    node.start();
    await converge(node.environment(spec));
    expect(node.served).toHaveLength(1);
  });

  test("what the installer itself writes is no change of somebody's", async () => {
    await converge(node.environment(spec));
    node.host.time += 60_000;
    await converge(node.environment(node.spec([node.runtime("00000002")])));
    await converge(node.environment(node.spec([])));
    expect(node.served).toEqual([]);
  });
});

function shapeOf(name: string): NodeShape {
  const shape = nodeShapes.find((one) => one.name === name);
  if (shape === undefined) throw new Error(`no such node: ${name}`);
  return shape;
}
