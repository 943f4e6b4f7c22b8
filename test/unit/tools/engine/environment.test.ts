import { chmod, mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import {
  baseEnvironment,
  closedDirectory,
  isKeptElsewhere,
  stackNetwork,
} from "../../../../tools/engine/environment.ts";
import { packageRoot } from "../../../../tools/files/project.ts";
import { enterNetwork } from "../../../../tools/local-cluster/layout.ts";

const ensured = vi.hoisted(() => vi.fn());
vi.mock("../../../../tools/local-cluster/cluster.ts", () => ({ ensureCluster: ensured }));
vi.mock("../../../../tools/local-cluster/requirements.ts", () => ({ requireRoot: () => {} }));

afterEach(() => vi.unstubAllEnvs());

const engine = { command: "/engine/pulumi", path: ["/engine"], version: "3.259.0", origin: "pinned" } as const;
const environment = (state = "/state") => baseEnvironment({ ...engine, path: [...engine.path] }, state);

test("a state directory of any name is a URL that the engine reads as that directory", () => {
  const state = "/home/a b/c#d/e%20f/state";
  const { href, pathname, hash } = new URL(environment(state).PULUMI_BACKEND_URL ?? "");
  expect([decodeURIComponent(pathname), hash]).toEqual([state, ""]);
  expect(href).toMatch(/^file:\/\/\//);
});

test("the stacks' files, whose passphrase may be empty, are in a directory that is closed to other users", async () => {
  const parent = await mkdtemp(join(tmpdir(), "state-"));
  const mode = async () => (await stat(join(parent, "state"))).mode & 0o777;
  try {
    await closedDirectory(join(parent, "state"));
    expect(await mode()).toBe(0o700);
    await chmod(join(parent, "state"), 0o755);
    await closedDirectory(join(parent, "state"));
    expect(await mode()).toBe(0o700);
  } finally {
    await rm(parent, { recursive: true });
  }
});

test("no proxy of the machine comes between the engine and its language host", () => {
  vi.stubEnv("NO_PROXY", undefined);
  vi.stubEnv("no_proxy", undefined);
  expect(environment()).toMatchObject({ no_proxy: "localhost,127.0.0.1", NO_PROXY: "localhost,127.0.0.1" });
  vi.stubEnv("NO_PROXY", ".example.com");
  expect(environment()).toMatchObject({
    no_proxy: ".example.com,localhost,127.0.0.1",
    NO_PROXY: ".example.com,localhost,127.0.0.1",
  });
});

test("a stack is kept where the user keeps stacks, and the dev stack in the clone", async () => {
  const home = await mkdtemp(join(tmpdir(), "home-"));
  try {
    vi.stubEnv("PULUMI_HOME", home);
    vi.stubEnv("PULUMI_CREDENTIALS_PATH", undefined);
    vi.stubEnv("PULUMI_BACKEND_URL", undefined);
    expect(await isKeptElsewhere("prod")).toBe(false);

    vi.stubEnv("PULUMI_BACKEND_URL", "s3://states");
    expect([await isKeptElsewhere("prod"), await isKeptElsewhere("dev")]).toEqual([true, false]);

    vi.stubEnv("PULUMI_BACKEND_URL", undefined);
    await writeFile(join(home, "credentials.json"), '{"current": "https://api.pulumi.com"}');
    expect([await isKeptElsewhere("prod"), await isKeptElsewhere("dev")]).toEqual([true, false]);

    // As a logout leaves it.
    await writeFile(join(home, "credentials.json"), '{"current": ""}');
    expect(await isKeptElsewhere("prod")).toBe(false);
  } finally {
    await rm(home, { recursive: true });
  }
});

test("the first update of a new local stack runs in its cluster's network, which is made before; a preview does not", async () => {
  const stack = `network-${process.pid}`;
  const file = join(packageRoot, `Pulumi.${stack}.yaml`);
  await writeFile(file, "config:\n  contrast-runtime:cluster:\n    kind: local\n    nodes: [{ name: n1 }]\n");
  try {
    expect(await stackNetwork(stack, false, () => {})).toEqual([]);
    expect(ensured).not.toHaveBeenCalled();
    expect(await stackNetwork(stack, true, () => {})).toEqual(enterNetwork(stack));
    expect(ensured).toHaveBeenCalledExactlyOnceWith({ name: stack, nodes: [{ name: "n1" }] }, expect.anything());
  } finally {
    await rm(file);
  }
});
