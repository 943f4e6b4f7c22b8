import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parse } from "smol-toml";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { editConfiguration } from "../../node-installer/containerd/edit.ts";
import type { HandlerEntry } from "../../node-installer/containerd/entry.ts";
import { editContext, type Located, readConfiguration } from "../../node-installer/containerd/locate.ts";
import { validateConfiguration } from "../../node-installer/containerd/validate.ts";
import { versionInOutput } from "../../node-installer/containerd/version.ts";
import { createNodeHost } from "../../node-installer/host/node-host.ts";
import { containerdVersions } from "../../runtime/containerd-versions.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { toStderr } from "../../tools/process/progress.ts";
import { containerdPrograms } from "../../tools/programs/pinned.ts";
import { expectGolden } from "../golden-file.ts";
import { entryOf } from "../unit/node-installer/containerd/entries.ts";
import { allShapes, type Shape } from "./containerd-shapes.ts";

// Real containerds read every shape of configuration before and after our edit. In each case the handler is served and
// nothing else changed, or the edit was refused before anything was written; the table of outcomes is a golden file.

const directory = mkdtempSync(join(tmpdir(), "containerd-matrix-"));
const host = createNodeHost({ root: "/" });
const outcomes = new Map<string, string[]>(allShapes.map(({ name }) => [name, []]));

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** An entry whose files exist: validation looks for them. */
function placed(entry: HandlerEntry): HandlerEntry {
  const runtimePath = join(directory, "payload", entry.handler, "shim");
  const ConfigPath = join(directory, "payload", entry.handler, "configuration.toml");
  mkdirSync(dirname(runtimePath), { recursive: true });
  writeFileSync(runtimePath, "");
  chmodSync(runtimePath, 0o755);
  writeFileSync(ConfigPath, "");
  return { ...entry, entry: { ...entry.entry, runtimePath, options: { ConfigPath } } };
}

const entries = [placed(entryOf("aks-clh-snp", "0123abcd", true)), placed(entryOf("metal-qemu-tdx", "4567cdef"))];

describe.each([...containerdVersions])("containerd %s", (minor) => {
  let binary: string;
  let version: string;

  beforeAll(async () => {
    binary = join(await containerdPrograms(minor, toStderr), "containerd");
    version = versionInOutput(spawnSync(binary, ["--version"], { encoding: "utf8" }).stdout) ?? "";
    expect(version).toContain(minor);
  });

  const dump = (file: string): { code: number | null; document: Record<string, unknown> } => {
    const { status, stdout } = spawnSync(
      binary,
      existsSync(file) ? ["-c", file, "config", "dump"] : ["config", "default"],
      {
        encoding: "utf8",
      },
    );
    return { code: status, document: status === 0 ? parse(stdout) : {} };
  };

  test.each(allShapes)("$name", async (shape) => {
    const file = lay(shape, minor);
    const located: Located = {
      distribution: "containerd",
      kind: "root",
      file,
      configuration: file,
      templateBase: undefined,
      unit: "containerd.service",
      socket: "",
      restart: "systemctl",
      binary,
      version,
      dataDirectories: [],
      templates: [],
      agentFiles: [],
    };
    const before = dump(file);
    const original = await readConfiguration(host, located);
    const context = editContext(located, original);
    let next: Buffer | undefined;
    try {
      next = editConfiguration(original.edited, entries, context);
      await validateConfiguration(host, located, next, entries);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      outcomes.get(shape.name)?.push(`refused: ${error.code}`);
      expect((await readConfiguration(host, located)).edited).toEqual(original.edited);
      return;
    }
    outcomes.get(shape.name)?.push("served");
    writeFileSync(file, next ?? "");
    const after = dump(file);
    expect([before.code, after.code]).toEqual([0, 0]);
    for (const { handler, entry } of entries) {
      expect(runtimesOf(after.document)[handler]).toMatchObject({
        runtime_path: entry.runtimePath,
        runtime_type: entry.runtimeType,
        options: entry.options,
      });
    }
    expect(significant(withoutOurs(after.document))).toEqual(significant(before.document));

    // and back again, also with the real containerd's consent
    const removed = editConfiguration(next, [], editContext(located, await readConfiguration(host, located)));
    await validateConfiguration(host, located, removed, []);
    expect(removed).toEqual(original.edited);
  });
});

test("the table of outcomes", () => {
  const width = Math.max(...allShapes.map(({ name }) => name.length));
  const columns = containerdVersions.map((minor, index) =>
    Math.max(minor.length, ...[...outcomes.values()].map((row) => row[index]?.length ?? 0)),
  );
  const line = (name: string, cells: readonly string[]): string =>
    [name.padEnd(width), ...cells.map((cell, index) => cell.padEnd(columns[index] ?? 0))].join("  ").trimEnd();
  const rows = [...outcomes].map(([name, cells]) => line(name, cells));
  expectGolden("containerd-matrix.txt", `${[line("", containerdVersions), ...rows].join("\n")}\n`);
});

/** Writes the files of a shape into a folder of their own. */
function lay({ name, root, beside = {} }: Shape, minor: string): string {
  const folder = join(directory, `${minor}-${name.replaceAll(/\W+/g, "-")}`);
  mkdirSync(folder);
  for (const [path, text] of Object.entries(beside)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  const file = join(folder, "config.toml");
  if (root !== undefined) writeFileSync(file, root);
  return file;
}

type Document = Record<string, unknown>;
const at = (document: unknown, ...path: string[]): Document =>
  path.reduce<unknown>((value, key) => (value as Document | undefined)?.[key], document) as Document;

const runtimesOf = (document: Document): Document =>
  at(document, "plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes") ??
  at(document, "plugins", "io.containerd.grpc.v1.cri", "containerd", "runtimes");

/** Removes the entries' settings from a dump. */
function withoutOurs(document: Document): Document {
  for (const { handler, entry } of entries) {
    delete runtimesOf(document)[handler];
    delete at(document, "plugins", "io.containerd.cri.v1.images", "runtime_platforms")?.[handler];
    if (entry.proxyPlugin !== undefined) delete at(document, "proxy_plugins")?.[entry.proxyPlugin.name];
  }
  return document;
}

/** Every scalar that is not a zero value, by its path. */
function significant(document: unknown, path = ""): string[] {
  if (typeof document !== "object" || document === null) {
    return ["", 0, false].includes(document as string) ? [] : [`${path} = ${String(document)}`];
  }
  return Object.entries(document)
    .filter(([key]) => path !== "" || key !== "imports")
    .flatMap(([key, value]) => significant(value, `${path}/${key}`))
    .sort();
}

test("no leftovers beside the files", () => {
  const { stdout } = spawnSync("find", [directory, "-name", "*candidate*"], { encoding: "utf8" });
  expect(stdout).toBe("");
});
