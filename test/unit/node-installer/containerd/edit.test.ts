import fc from "fast-check";
import { parse } from "smol-toml";
import { describe, expect, test } from "vitest";
import { at, sameDocument, type Table, union } from "../../../../node-installer/containerd/document.ts";
import { type EditContext, editConfiguration, ownedBy } from "../../../../node-installer/containerd/edit.ts";
import type { HandlerEntry } from "../../../../node-installer/containerd/entry.ts";
import { Refusal } from "../../../../runtime/refusal.ts";
import { adminsFile, configuration, ids, refusal } from "./configurations.ts";
import { aks, entryOf, snp, tdx } from "./entries.ts";

const file = "/etc/containerd/config.toml";
const on = (containerdVersion: string): EditContext => ({ file, kind: "root", containerdVersion });
const toTable = (text: string): Table => parse(text, { integersAsBigInt: true }) as Table;

function edit(text: string | undefined, entries: HandlerEntry[], context: EditContext): string | undefined {
  return editConfiguration(text === undefined ? undefined : Buffer.from(text), entries, context)?.toString();
}

const oldRuntimes = ["plugins", ids.old, "containerd", "runtimes"];
const newRuntimes = ["plugins", ids.new, "containerd", "runtimes"];
const v1Runtimes = ["plugins", "cri", "containerd", "runtimes"];

describe("the block", () => {
  test("is added at the end, below unchanged bytes", () => {
    expect(
      edit(adminsFile, [snp], on("2.2.9")),
    ).toBe(`${adminsFile}# BEGIN contrast-runtime (managed, do not edit; eeb8af751719ed27)
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.contrast-cc-metal-qemu-snp-0123abcd]
runtime_type = "io.containerd.contrast-cc.v2"
runtime_path = "/opt/edgeless/contrast-cc-metal-qemu-snp-0123abcd/bin/containerd-shim-contrast-cc-v2"
pod_annotations = ["io.katacontainers.config.hypervisor.cc_init_data"]
privileged_without_host_devices = true

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.contrast-cc-metal-qemu-snp-0123abcd.options]
ConfigPath = "/opt/edgeless/contrast-cc-metal-qemu-snp-0123abcd/etc/configuration.toml"
# END contrast-runtime
`);
  });

  test("says what it holds", () => {
    const text = Buffer.from(edit(adminsFile, [snp, aks], on("2.4.2")) ?? "");
    expect(ownedBy(text, on("2.4.2"))).toEqual({
      handlers: [aks.handler, snp.handler],
      proxyPlugins: [`tardev-${aks.handler}`],
    });
    expect(ownedBy(undefined, on("2.4.2"))).toEqual({ handlers: [], proxyPlugins: [] });
  });

  test("stays where it is when somebody appends to the file", () => {
    const appended = `${edit("version = 3", [snp], on("2.2.9"))}[debug]\nlevel = "info"\n`;
    const both = edit(appended, [snp, tdx], on("2.2.9")) ?? "";
    expect(both.endsWith('# END contrast-runtime\n[debug]\nlevel = "info"\n')).toBe(true);
    expect(edit(both, [], on("2.2.9"))).toBe('version = 3\n[debug]\nlevel = "info"\n');
  });

  test.each([
    ["a key after it", (text: string) => `${text}oom_score = 0\n`, "fence-not-apart"],
    ["imports after it", (text: string) => `${text}imports = ["/a"]\n`, "fence-not-apart"],
  ])("is left alone with %s", (_, damage, code) => {
    const installed = edit(adminsFile, [snp], on("2.2.9")) ?? "";
    const damaged = damage(installed);
    expect(damaged).not.toBe(installed);
    expect(refusal(() => edit(damaged, [snp, tdx], on("2.2.9"))).code).toBe(code);
    expect(refusal(() => edit(damaged, [], on("2.2.9"))).code).toBe(code);
  });

  test("survives a tool that changes the line ends of the whole file", () => {
    const installed = (edit(adminsFile, [snp], on("2.2.9")) ?? "").replaceAll("\n", "\r\n");
    expect(edit(installed, [], on("2.2.9"))).toBe(adminsFile.replaceAll("\n", "\r\n"));
  });
});

describe("which tables are written", () => {
  const runc = (plugin: string): string => `[plugins.'${plugin}'.containerd.runtimes.runc]\nruntime_type = "x"\n`;
  test.each<[string, string | undefined, string, readonly string[]]>([
    ["version 2 on 1.7", adminsFile, "1.7.24", oldRuntimes],
    ["version 2 on 2.2", adminsFile, "2.2.9", oldRuntimes],
    ["version 2 on 2.4", adminsFile, "2.4.2", oldRuntimes],
    ["version 2 with the newer ids, as AKS writes", `version = 2\n${runc(ids.new)}`, "2.2.4", newRuntimes],
    [
      "version 2 with both, runtimes in the newer",
      `version = 2\n${runc(ids.new)}${runc(ids.old)}`,
      "2.2.4",
      newRuntimes,
    ],
    [
      "version 2 with both, runtimes in the older",
      `version = 2\n[plugins.'${ids.new}']\na = 1\n${runc(ids.old)}`,
      "2.4.2",
      oldRuntimes,
    ],
    ["version 2 with the newer ids on 1.7, which ignores them", `version = 2\n${runc(ids.new)}`, "1.7.24", oldRuntimes],
    ["version 2 without a section", "version = 2\n", "2.2.9", oldRuntimes],
    ["version 3", "version = 3\n", "2.2.9", newRuntimes],
    [
      "version 3 with streaming options under the older id",
      `version = 3\n[plugins.'${ids.old}']\na = 1\n`,
      "2.2.9",
      newRuntimes,
    ],
    ["version 3 with migrated runtimes on 2.4", `version = 3\n${runc(ids.old)}`, "2.4.2", oldRuntimes],
    ["version 4", "version = 4\n", "2.3.4", newRuntimes],
    ["version 1 on 1.7", "version = 1\n", "1.7.24", v1Runtimes],
    ["no version on 1.7", runc("cri"), "1.7.24", v1Runtimes],
    ["no version on 2.4", runc("cri"), "2.4.2", v1Runtimes],
    ["no version with the ids of version 2 on 2.4", runc(ids.old), "2.4.2", oldRuntimes],
    ["an empty file on 1.7", "", "1.7.24", v1Runtimes],
    ["an empty file on 2.2", "", "2.2.9", newRuntimes],
    ["comments alone on 2.4", "# nothing\n", "2.4.2", newRuntimes],
    ["no file on 1.7", undefined, "1.7.24", oldRuntimes],
    ["no file on 2.4", undefined, "2.4.2", oldRuntimes],
  ])("%s", (_, text, containerd, runtimes) => {
    const document = toTable(edit(text, [snp], on(containerd)) ?? "");
    expect(at(document, [...runtimes, snp.handler, "runtime_path"])).toBe(snp.entry.runtimePath);
    const written = [oldRuntimes, newRuntimes, v1Runtimes].filter((path) => at(document, [...path, snp.handler]));
    expect(written).toEqual([runtimes]);
  });

  test("a snapshotter: containerd 2.x is also told to pull with it", () => {
    const platforms = ["plugins", "io.containerd.cri.v1.images", "runtime_platforms", aks.handler, "snapshotter"];
    for (const [text, containerd, pulled] of [
      [adminsFile, "1.7.24", undefined],
      [adminsFile, "2.2.9", aks.entry.snapshotter],
      ["version = 3\n", "2.2.9", aks.entry.snapshotter],
    ] as const) {
      const document = toTable(edit(text, [aks], on(containerd)) ?? "");
      expect(at(document, platforms)).toBe(pulled);
      expect(at(document, ["proxy_plugins", aks.entry.snapshotter ?? ""])).toEqual({
        type: "snapshot",
        address: aks.entry.proxyPlugin?.address,
      });
    }
  });

  test.each([
    ["1.7 names runc where the file names no runtime", "version = 2\n", "1.7.24", true],
    ["1.7 leaves a file alone that names one", adminsFile, "1.7.24", false],
    ["2.x keeps its own", "version = 2\n", "2.2.9", false],
  ])("%s", (_, text, containerd, named) => {
    const next = edit(text, [snp], on(containerd)) ?? "";
    expect(at(toTable(next.replace(adminsFile, "version = 2\n")), [...oldRuntimes, "runc"]) !== undefined).toBe(named);
    expect(edit(next, [], on(containerd))).toBe(text);
  });
});

describe("a file that is not there", () => {
  test.each(["1.7.24", "2.0.5", "2.4.2"])("is created on %s as all can read it, and removed again", (containerd) => {
    const made = edit(undefined, [snp], on(containerd)) ?? "";
    expect(toTable(made).version).toBe(2n);
    expect(edit(edit(made, [tdx, aks], on(containerd)), [], on(containerd))).toBeUndefined();
  });

  test("stays, with its version, if somebody added to it", () => {
    const made = `${edit(undefined, [snp], on("2.2.9"))}[debug]\nlevel = "info"\n`;
    const left = edit(made, [], on("2.2.9")) ?? "";
    expect(toTable(left)).toEqual({ version: 2n, debug: { level: "info" } });
    expect(edit(edit(left, [tdx], on("2.2.9")), [], on("2.2.9"))).toBe(left);
  });

  test("an empty file stays an empty file", () => {
    expect(edit(edit("", [snp], on("2.2.9")), [], on("2.2.9"))).toBe("");
  });
});

describe("refused before anything is written", () => {
  const table = `[plugins."${ids.old}".containerd.runtimes.${snp.handler}]\nruntime_type = "x"\n`;
  test.each<[string, string | Buffer, string, string]>([
    ["containerd 1.6", adminsFile, "1.6.20", "containerd-too-old"],
    ["containerd 3", adminsFile, "3.0.0", "containerd-unknown"],
    ["no version at all", adminsFile, "latest", "containerd-version-unreadable"],
    ["zero bytes", Buffer.alloc(100), "2.2.9", "configuration-zero-bytes"],
    ["another encoding", Buffer.from([0x61, 0xff, 0xfe]), "2.2.9", "configuration-not-utf8"],
    ["a lone carriage return", "version = 2\r[debug]\n", "1.7.24", "configuration-lone-carriage-return"],
    ["a byte order mark on 2.x", "\ufeffversion = 2\n", "2.2.9", "configuration-byte-order-mark"],
    ["broken TOML", "version = \n", "2.2.9", "configuration-invalid"],
    ["an empty element", "imports = [ , ]\n", "2.2.9", "configuration-invalid"],
    ["a table twice", "[debug]\n[debug]\n", "2.2.9", "configuration-invalid"],
    ["version as a string", 'version = "2"\n', "2.2.9", "configuration-version-type"],
    ["version 3 on 1.7", "version = 3\n", "1.7.24", "configuration-version-newer"],
    ["version 4 on 2.2", "version = 4\n", "2.2.9", "configuration-version-newer"],
    ["version 5 on 2.4", "version = 5\n", "2.4.2", "configuration-version-newer"],
    ["a CRI section that 2.2 ignores", "[plugins.cri]\na = 1\n", "2.2.9", "configuration-version-ignored"],
    [
      "two CRI sections of version 1",
      `[plugins.cri]\na = 1\n[plugins."${ids.old}"]\n`,
      "2.4.2",
      "configuration-ambiguous",
    ],
    ["imports as a string", 'version = 2\nimports = "x"\n', "2.2.9", "imports-type"],
    ["imports below a header", 'version = 2\n[debug]\nimports = ["/a"]\n', "2.2.9", "imports-misplaced"],
    ["cri disabled, short", 'version = 2\ndisabled_plugins = ["cri"]\n', "1.7.24", "cri-disabled"],
    ["cri disabled, long", `version = 3\ndisabled_plugins = ["${ids.new}"]\n`, "2.2.9", "cri-disabled"],
    ["plugins inline", `version = 2\nplugins = { "${ids.old}" = { a = 1 } }\n`, "2.2.9", "configuration-inline-table"],
    ["plugins inline and empty", "version = 2\nplugins = {}\n", "1.7.24", "configuration-inline-table"],
    [
      "runtimes inline",
      `version = 2\n[plugins."${ids.old}".containerd]\nruntimes = { runc = { a = 1 } }\n`,
      "1.7.24",
      "configuration-inline-table",
    ],
    ["plugins as a list of tables", "version = 2\n[[plugins]]\na = 1\n", "2.2.9", "configuration-not-a-table"],
    ["plugins as a number", "version = 2\nplugins = 1\n", "2.2.9", "configuration-not-a-table"],
    ["our handler outside of the block", `version = 2\n${table}`, "2.2.9", "handler-exists"],
  ])("%s", (_, text, containerd, code) => {
    const refused = refusal(() => editConfiguration(Buffer.from(text), [snp], on(containerd)));
    expect(refused.code).toBe(code);
    // whole sentences, the last of which says what to do
    expect(refused.message).toMatch(/[.:;] \S.*\.$/s);
  });

  test("a proxy plugin that the file already has", () => {
    const text = `version = 2\n[proxy_plugins.${aks.entry.snapshotter}]\ntype = "snapshot"\n`;
    expect(refusal(() => edit(text, [aks], on("2.2.9"))).code).toBe("handler-exists");
    expect(edit(text, [snp], on("2.2.9"))).toContain(snp.handler);
  });

  test("proxy plugins written inline", () => {
    const text = 'version = 3\nproxy_plugins = { x = { type = "snapshot" } }\n';
    expect(refusal(() => edit(text, [aks], on("2.2.9"))).message).toContain("proxy_plugins is an inline table");
  });

  test("snapshotters of runtimes written inline", () => {
    const text = `version = 3\n[plugins."io.containerd.cri.v1.images"]\nruntime_platforms = { kata = { snapshotter = "x" } }\n`;
    expect(refusal(() => edit(text, [aks], on("2.2.9"))).message).toContain("runtime_platforms is an inline table");
  });

  test("a byte order mark stays on 1.7", () => {
    const text = `\ufeff${adminsFile}`;
    const next = edit(text, [snp], on("1.7.24"));
    expect(next?.startsWith(text)).toBe(true);
    expect(edit(next, [], on("1.7.24"))).toBe(text);
  });
});

describe("whatever the file", { timeout: 900_000 }, () => {
  const releases = { 1: "1.7.24", 2: "2.2.9", 3: "2.2.9", 4: "2.4.2" } as const;
  const entries = fc.uniqueArray(
    fc.tuple(
      fc.constantFrom("metal-qemu-snp", "metal-qemu-tdx", "aks-clh-snp"),
      fc.stringMatching(/^[0-9a-f]{8}$/),
      fc.boolean(),
    ),
    { maxLength: 3, selector: ([platform, digits]) => platform + digits },
  );
  const cases = fc.record({ generated: configuration([1, 2, 3, 4]), lists: fc.array(entries, { maxLength: 4 }) });

  test("each edit adds our tables and nothing else, and removing them restores every byte", () => {
    fc.assert(
      fc.property(cases, ({ generated: { text, version }, lists }) => {
        const context = on(releases[version]);
        const original = toTable(text);
        let current = text;
        for (const list of lists) {
          const wanted = list.map(([platform, digits, own]) => entryOf(platform, digits, own));
          current = edit(current, wanted, context) ?? "";
          expect(edit(text, wanted.toReversed(), context)).toBe(current);
          expect(edit(current, wanted, context)).toBe(current);
          const alone = toTable(current.slice(Math.max(0, current.indexOf("# BEGIN contrast-runtime"))));
          const whole = toTable(current);
          if (wanted.length === 0) expect(current).toBe(text);
          else expect(sameDocument(whole, union(original, alone))).toBe(true);
          expect(ownedBy(Buffer.from(current), context).handlers).toEqual(wanted.map(({ handler }) => handler).sort());
        }
        expect(edit(current, [], context)).toBe(text);
      }),
      { numRuns: 300 },
    );
  });

  test("arbitrary bytes are edited or refused, never half understood", () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.string({ unit: "binary", maxLength: 80 }).map(Buffer.from),
    );
    fc.assert(
      fc.property(bytes, fc.constantFrom("1.7.24", "2.2.9", "2.4.2"), (input, containerd) => {
        let next: Buffer | undefined;
        try {
          next = editConfiguration(input, [snp], on(containerd));
        } catch (error) {
          expect(error).toBeInstanceOf(Refusal);
          return;
        }
        expect(editConfiguration(next, [], on(containerd))).toEqual(Buffer.from(input));
      }),
      { numRuns: 500 },
    );
  });

  test("a hundred installations and removals", () => {
    for (const original of [adminsFile, adminsFile.trimEnd(), "version = 3", "", "# x\r\nversion = 3\r\n"]) {
      let current = original;
      for (let cycle = 0; cycle < 100; cycle++) {
        current = edit(current, [snp], on("2.2.9")) ?? "";
        current = edit(current, [tdx, aks, snp].slice(cycle % 3), on("2.2.9")) ?? "";
        current = edit(current, [], on("2.2.9")) ?? "";
      }
      expect(current).toBe(original);
    }
  });
});
