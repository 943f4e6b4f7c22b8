import { readdirSync, readFileSync } from "node:fs";
import { beforeEach, describe, expect, test } from "vitest";
import {
  type Journal,
  journalPath,
  outlineJournal,
  readJournal,
  writeJournal,
} from "../../../../node-installer/host/journal.ts";
import { converge } from "../../../../node-installer/install/converge.ts";
import { MemoryHost } from "../../../fakes/memory-host.ts";
import { adminsFile, configPath, MemoryNode } from "../../../fakes/memory-node.ts";

let host: MemoryHost;
beforeEach(() => {
  host = new MemoryHost();
});

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
const parsed = (text: string | undefined): Json => JSON.parse(text ?? "");

/** As a newer version might have written it: every object has one more field. */
function extended(value: Json): Json {
  if (Array.isArray(value)) return value.map(extended);
  if (value === null || typeof value !== "object") return value;
  const fields = Object.entries(value).map(([key, each]): [string, Json] => [key, extended(each)]);
  return { ...Object.fromEntries(fields), ofTheFuture: { is: ["unknown"] } };
}

/** Written by the versions themselves: the first one, those that followed, and the one from before this test. */
const folder = new URL("journals/", import.meta.url);
const journals = readdirSync(folder);

describe.each(journals)("%s", (name) => {
  const text = readFileSync(new URL(name, folder), "utf8");

  test("is read, and written back without a loss", async () => {
    host.put(journalPath, text);
    await writeJournal(host, await readJournal(host, { group: "workers" }));
    expect(parsed(host.text(journalPath))).toEqual(parsed(text));
  });

  test("is also read after a newer version added to it, and keeps what that wrote", async () => {
    host.put(journalPath, JSON.stringify(extended(parsed(text))));
    const journal = await readJournal(host, { group: "workers" });
    await writeJournal(host, { ...journal, retryToken: "again" });
    const kept = parsed(host.text(journalPath));
    expect(kept).toEqual({ ...(extended(parsed(text)) as object), retryToken: "again" });
  });

  test("leaves the node with known fields alone", () => {
    const outlined = outlineJournal(JSON.stringify(extended(parsed(text))), () => undefined);
    expect(outlined).toContain('"group": "workers"');
    expect(outlined).not.toContain("ofTheFuture");
  });
});

test("words that a newer version may have more of do not make a journal unreadable, and those that decide do", async () => {
  const today = parsed(readFileSync(new URL("today.json", folder), "utf8"));
  const newer = JSON.stringify(today).replaceAll('"metal-qemu-snp"', '"metal-new-cca"').replaceAll('"snp"', '"cca"');
  host.put(journalPath, newer.replaceAll('"kernel"', '"device-tree"'));
  const { runtimes } = await readJournal(host, { group: "workers" });
  expect(runtimes.map(({ runtime }) => String(runtime.platform))).toEqual(["metal-new-cca", "metal-new-cca"]);
  host.put(journalPath, newer.replace('"replacing"', '"unheard-of"'));
  await expect(readJournal(host, { group: "workers" })).rejects.toMatchObject({ code: "journal-unreadable" });
});

test("after a downgrade of the product, a node keeps serving and can be uninstalled", async () => {
  const node = new MemoryNode();
  try {
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    const newer = JSON.stringify(extended(parsed(node.host.text(journalPath)))).replaceAll('"kernel"', '"device-tree"');
    node.host.put(journalPath, newer);
    const starts = node.starts;
    await converge(node.environment(node.spec([node.runtime("00000001")])));
    expect(node.starts).toBe(starts);
    await converge(node.environment(node.spec([])));
    expect(node.served).toEqual([]);
    expect(node.host.text(configPath)).toBe(adminsFile);
    expect(node.host.text(journalPath)).toBeUndefined();
  } finally {
    node.close();
  }
});

test("a field that is added to a journal later is never required", () => {
  // Compiles only as long as this is a whole journal.
  const least: Journal = { schemaVersion: 1, group: "workers", runtimes: [], createdDirectories: [] };
  expect(least.schemaVersion).toBe(1);
});
