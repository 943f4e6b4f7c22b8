import { readFileSync } from "node:fs";
import fc from "fast-check";
import { parse, stringify } from "smol-toml";
import { describe, expect, test } from "vitest";
import { at, sameDocument, type Table, withoutZeros } from "../../../../node-installer/containerd/document.ts";
import { type EditContext, editConfiguration, ownedBy, subtract } from "../../../../node-installer/containerd/edit.ts";
import type { HandlerEntry } from "../../../../node-installer/containerd/entry.ts";
import { joinFence } from "../../../../node-installer/containerd/fence.ts";
import { adminsFile, configuration, ids, refusal } from "./configurations.ts";
import { aks, snp, tdx } from "./entries.ts";

/** Files with our tables that somebody else has written since: what is ours is known by the names of our handlers. */

const file = "/etc/containerd/config.toml";
const placed = (...entries: HandlerEntry[]) => ({ placed: entries.map(({ handler }) => handler), wanted: [] });
const wanted = (...entries: HandlerEntry[]) => ({ placed: [], wanted: entries });
const on = (containerdVersion: string, known: EditContext["known"] = placed(snp, tdx, aks)): EditContext => ({
  file,
  kind: "root",
  containerdVersion,
  ...(known && { known }),
});
const edit = (text: string | undefined, entries: HandlerEntry[], context: EditContext): string | undefined =>
  editConfiguration(text === undefined ? undefined : Buffer.from(text), entries, context)?.toString();
const toTable = (text: string): Table => parse(text, { integersAsBigInt: true }) as Table;
const codeOf = (act: () => unknown): string => refusal(act).code;
const escaped = (text: string) => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
const isPartOf = (part: string, whole: string): boolean => {
  const lines = whole.split("\n");
  return part.split("\n").every((line) => {
    const found = lines.indexOf(line);
    lines.splice(0, found + 1);
    return found >= 0;
  });
};

const installed = (entries: HandlerEntry[] = [snp], text: string | undefined = adminsFile, version = "1.7.24") =>
  edit(text, entries, on(version)) ?? "";

test("a snapshotter's table, of which a dump repeats the address, is as wanted", () => {
  const { name = "", address = "" } = aks.entry.proxyPlugin ?? {};
  const text = installed([aks]).replace("# END", `[proxy_plugins.${name}.exports]\naddress = "${address}"\n# END`);
  const dumped = stringify(parse(text));
  for (const known of [placed(aks), wanted(aks)]) {
    expect(edit(dumped, [aks], on("1.7.24", known))).toBe(dumped);
    expect(edit(dumped, [], on("1.7.24", known))).not.toContain("contrast-");
  }
});

describe("a file that another program wrote anew", () => {
  test.each([
    ["nvidia-ctk", "nvidia-ctk.toml", "1.7.24"],
    ["nvidia-ctk", "nvidia-ctk.toml", "2.4.2"],
    ["config migrate of 2.0", "config-migrate-2.0.7.toml", "2.0.7"],
    ["config migrate of 2.4", "config-migrate-2.4.2.toml", "2.4.2"],
  ])("%s: is as wanted, edited and restored (%s on %s)", (_, name, version) => {
    const text = readFileSync(new URL(`../../../fixtures/rewritten/${name}`, import.meta.url), "utf8");
    // Whoever lost the journal knows it by its content.
    for (const known of [placed(snp), wanted(snp)]) {
      expect(ownedBy(Buffer.from(text), on(version, known)).handlers).toEqual([snp.handler]);
      expect(edit(text, [snp], on(version, known))).toBe(text);
    }
    const without = edit(text, [], on(version)) ?? "";
    expect(isPartOf(without, text)).toBe(true);
    const theirs = subtract(toTable(text), { handlers: [snp.handler], proxyPlugins: [] });
    expect(sameDocument(toTable(without), theirs)).toBe(true);
    const both = edit(text, [snp, tdx], on(version)) ?? "";
    expect(both.startsWith(without.trimEnd())).toBe(true);
    expect(both.split("# BEGIN contrast-runtime")).toHaveLength(2);
    expect(edit(both, [], on(version))?.trimEnd()).toBe(without.trimEnd());
  });

  test("keeps containerd 1.7's runc for a runtime that was added beside it", () => {
    const nvidia = `[plugins."${ids.old}".containerd.runtimes.nvidia]\nruntime_type = "io.containerd.runc.v2"\n`;
    const beside = installed([snp], "version = 2\n") + nvidia;
    for (const text of [beside, stringify(toTable(beside))]) {
      for (const entries of [[], [tdx]]) {
        const document = toTable(edit(text, entries, on("1.7.24")) ?? "");
        const runtimes = at(document, ["plugins", ids.old, "containerd", "runtimes"]) as Table;
        expect(Object.keys(runtimes).sort()).toEqual([...entries.map(({ handler }) => handler), "nvidia", "runc"]);
      }
    }
  });

  test("with tables in both spellings of the plugin's id is brought in order", () => {
    const twice = `${installed()}[plugins."${ids.new}".containerd.runtimes.${snp.handler}]\nruntime_type = "x"\n`;
    expect(edit(twice, [snp], on("1.7.24"))).toBe(installed());
  });

  test("in a way that cannot be taken apart line by line is refused with what helps", () => {
    const { runc, [snp.handler]: own } = at(toTable(installed()), [
      "plugins",
      ids.old,
      "containerd",
      "runtimes",
    ]) as Table;
    const inline = (value: unknown): string =>
      typeof value === "object" && !Array.isArray(value) && value !== null
        ? `{ ${Object.entries(value)
            .map(([key, one]) => `${key} = ${inline(one)}`)
            .join(", ")} }`
        : JSON.stringify(value);
    const lines = (runtimes: Record<string, unknown>) =>
      Object.entries(runtimes).map(([name, table]) => `${name} = ${inline(table)}`);
    const below = `version = 2\n[plugins."${ids.old}".containerd]\n`;
    const oneLine = `${below}runtimes = { ${lines({ runc, [snp.handler]: own }).join(", ")} }\n`;
    for (const entries of [[], [snp]])
      expect(codeOf(() => edit(oneLine, entries, on("2.2.9")))).toBe("configuration-inline-table");
    const apart = `${below}[plugins."${ids.old}".containerd.runtimes]\n${lines({ runc }).join("")}\n`;
    const corrected = `${apart}${lines({ [snp.handler]: own }).join("")}\n`;
    expect(edit(corrected, [snp], on("2.2.9"))).toBe(corrected);
    expect(edit(corrected, [], on("2.2.9"))).toBe(apart);
  });

  test("whatever it holds, keeps everything that is not ours", { timeout: 300_000 }, () => {
    const releases = { 1: "1.7.24", 2: "2.2.9", 3: "2.2.9", 4: "2.4.2" } as const;
    fc.assert(
      fc.property(configuration([1, 2, 3, 4]), fc.boolean(), ({ text, version }, isPlaced) => {
        const entries = [snp, aks];
        const context = on(releases[version], isPlaced ? placed(...entries) : wanted(...entries));
        const written = stringify(toTable(edit(text, entries, context) ?? ""));
        const known = on(releases[version], isPlaced ? placed(...entries) : wanted(...entries));
        expect(edit(written, entries, known)).toBe(written);
        const without = edit(written, [], known) ?? "";
        expect(isPartOf(without, written)).toBe(true);
        const runc = (document: Table) => withoutZeros(subtract(document, { handlers: ["runc"], proxyPlugins: [] }));
        expect(sameDocument(runc(toTable(without)), runc(toTable(text)))).toBe(true);
      }),
      { numRuns: 100 },
    );
  });
});

describe("a block that was edited", () => {
  const own = `# mine\n[plugins."${ids.old}".containerd.runtimes.gvisor]\nruntime_type = "gvisor"\n`;
  test.each([
    ["a value", (text: string) => text.replace("_devices = true", "_devices = false"), ""],
    ["a setting more", (text: string) => text.replace("pod_annotations", 'cni_conf_dir = "/x"\npod_annotations'), ""],
    ["a comment", (text: string) => text.replace("# END", "# mine\n# END"), "# mine\n"],
    ["a remark beside a value", (text: string) => text.replace("devices = true", "devices = true # why?"), "# why?\n"],
    ["a table of somebody else's", (text: string) => text.replace("# END", `${own}# END`), own],
    ["the plugin's id", (text: string) => text.replaceAll(new RegExp(`${ids.old}(?=.*contrast)`, "g"), ids.new), ""],
    [
      "its indentation",
      (text: string) => text.replace(/# BEGIN(?:.|\n)*/, (block) => block.replaceAll(/^(?=.)/gm, "  ")),
      "",
    ],
    ["the order of its keys", (text: string) => text.replace(/(runtime_type.*\n)(runtime_path.*\n)/, "$2$1"), ""],
    ["its first line", (text: string) => text.replace(/# BEGIN.*/, "# BEGIN contrast-runtime"), ""],
    ["its end, which is lost", (text: string) => text.replace("# END contrast-runtime\n", ""), ""],
    ["its beginning, which is lost", (text: string) => text.replace(/# BEGIN.*\n/, ""), ""],
    ["itself, which is there twice", (text: string) => text + text.slice(text.indexOf("# BEGIN")), ""],
  ])("in %s is ours all the same", (_, change, kept) => {
    const edited = change(installed());
    expect(edited).not.toBe(installed());
    expect(edit(edited, [], on("1.7.24"))).toBe(adminsFile + kept);
    expect(edit(edited, [snp, tdx], on("1.7.24"))).toBe(installed([snp, tdx], adminsFile + kept));
  });

  test("is ours also where no journal knows its handlers, for their names look like ours", () => {
    const edited = installed().replace("_devices = true", "_devices = false");
    expect(edit(edited, [], on("1.7.24", placed()))).toBe(adminsFile);
  });

  const template: EditContext = {
    ...on("2.2.9"),
    kind: "template",
    rendered: { file: "/rendered", bytes: Buffer.from("version = 3\n") },
  };
  const base = '{{ template "base" . }}\n{{- if .X }}\n[debug]\nlevel = "{{ .Level }}"\n{{ end }}\n';

  test("of a template is found line by line", () => {
    const whole = edit(base, [snp], template) ?? "";
    const edited = whole.replace("devices = true", "devices = false").replace(/# END.*\n/, "");
    expect(edit(edited, [], template)).toBe(base);
    expect(edit(edited, [snp], template)).toBe(whole);
  });

  test("of a template in words that are no table of ours is refused, until the line that is named is deleted", () => {
    const others = [
      `{{ if eq .Handler "${snp.handler}" }}{{ end }}`,
      `  ${tdx.handler} = { runtime_type = "{{ .Type }}" } # theirs`,
    ];
    let text = `${edit(base, [snp], template)}${others.join("\n")}\n`;
    for (const line of others) {
      const { code, message } = refusal(() => edit(text, [snp], template));
      expect(code).toBe("template-unclear");
      const named = /safely: (.*)\nDelete that line/.exec(message)?.[1] ?? "";
      expect(named).toBe(line.trim());
      text = text.replace(new RegExp(`^.*${escaped(named)}\n`, "m"), "");
    }
    expect(edit(text, [snp], template)).toBe(edit(base, [snp], template));
    expect(edit(text, [], template)).toBe(base);
  });

  test("by a key that was meant for another table is refused, until that is moved", () => {
    for (const lost of ["", "# END contrast-runtime\n"]) {
      const appended = `${installed().replace("# END contrast-runtime\n", lost)}oom_score = -999\n`;
      const code = lost === "" ? "key-misplaced" : "fence-not-apart";
      for (const entries of [[], [snp, tdx]]) expect(codeOf(() => edit(appended, entries, on("1.7.24")))).toBe(code);
      const moved = `oom_score = -999\n${appended.replace("oom_score = -999\n", "")}`;
      expect(edit(moved, [], on("1.7.24"))).toBe(`oom_score = -999\n${adminsFile}`);
    }
  });
});

describe("a table under the name of a handler that this node does not know", () => {
  const table = `\n[plugins."${ids.old}".containerd.runtimes.${snp.handler}]\nruntime_type = "x"\n`;
  test("stays, and is refused until it is deleted, if it says something else than ours", () => {
    expect(codeOf(() => edit(adminsFile + table, [snp], on("1.7.24", wanted(snp))))).toBe("handler-exists");
    expect(edit(adminsFile + table, [tdx], on("1.7.24", wanted(tdx)))?.startsWith(adminsFile + table)).toBe(true);
    expect(edit(adminsFile + table, [], on("1.7.24", wanted()))).toBe(adminsFile + table);
    expect(edit(adminsFile, [snp], on("1.7.24", wanted(snp)))).toBe(installed());
  });
});

describe("a file that was not there", () => {
  test.each(["1.7.24", "2.0.7", "2.4.2"])("made on %s is the same for every containerd", (version) => {
    const made = edit(undefined, [snp], on(version));
    expect(made).toBe(edit(undefined, [snp], on("1.7.24")));
    for (const other of ["1.7.24", "2.2.9", "2.4.2"]) expect(edit(made, [snp], on(other))).toBe(made);
  });

  test("that an earlier release made with version 3 on 2.x is made readable after a downgrade", () => {
    const lines = [
      "version = 3",
      "",
      `[plugins."${ids.new}".containerd.runtimes.${snp.handler}]`,
      'runtime_type = "x"',
    ];
    const made = joinFence({ before: "", after: "" }, lines);
    expect(edit(made, [snp], on("1.7.24"))).toBe(edit(undefined, [snp], on("1.7.24")));
    expect(edit(made, [], on("1.7.24"))).toBeUndefined();
  });
});
