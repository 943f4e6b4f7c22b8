import { describe, expect, test } from "vitest";
import { compareDumps } from "../../../../node-installer/containerd/dumps.ts";
import { editConfiguration } from "../../../../node-installer/containerd/edit.ts";
import type { HandlerEntry } from "../../../../node-installer/containerd/entry.ts";
import { editContext, locate, readConfiguration } from "../../../../node-installer/containerd/locate.ts";
import { validateConfiguration } from "../../../../node-installer/containerd/validate.ts";
import { aks, snp, tdx } from "./entries.ts";
import { type NodeOptions, nodeOf, v2, v3 } from "./nodes.ts";

const nothing = { handlers: [], proxyPlugins: [] };
const edited = (text: string, entries: HandlerEntry[]): string =>
  editConfiguration(Buffer.from(text), entries, { file: "c", kind: "root", containerdVersion: "2.2.9" })?.toString() ??
  "";

describe("two dumps", () => {
  const base = `${v3}[plugins."io.containerd.cri.v1.images"]\nsnapshotter = "overlayfs"\n`;

  test.each<[string, string, string, HandlerEntry[], RegExp | undefined]>([
    ["our entries alone", base, edited(base, [snp, aks]), [snp, aks], undefined],
    ["one entry in place of another", edited(base, [tdx]), edited(base, [aks]), [aks], undefined],
    ["defaults spelled out", `${base}[debug]\nuid = 0\nlevel = ""\nlist = []\n`, edited(base, [snp]), [snp], undefined],
    ["an entry that is not there", base, base, [snp], /would not be served/],
    [
      "an entry with another shim",
      base,
      edited(base, [snp]).replaceAll("/bin/containerd-shim", "/bin/other"),
      [snp],
      /runtime_path of handler .* instead of/,
    ],
    [
      "an entry without its options",
      base,
      edited(base, [snp]).replace(/ConfigPath.*/, ""),
      [snp],
      /options of handler/,
    ],
    [
      "a snapshotter that pulls no image",
      base,
      edited(base, [aks]).replace(/\[plugins.*runtime_platforms.*\]\nsnapshotter.*/, ""),
      [aks],
      /images of handler .* pulled with nothing/,
    ],
    [
      "a proxy plugin elsewhere",
      base,
      edited(base, [aks]).replace(/address = .*/, 'address = "/x"'),
      [aks],
      /proxy plugin .* would be at "\/x"/,
    ],
    [
      "a foreign runtime gone",
      `${base}[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]\nruntime_type = "k"\n`,
      edited(base, [snp]),
      [snp],
      /runtimes\.kata would change from \{"runtime_type":"k"\} to nothing/,
    ],
    ["a setting changed", `${base}[debug]\nlevel = "info"\n`, edited(base, [snp]), [snp], /debug would change/],
    [
      "a default runtime that is not there",
      base,
      `${edited(base, [snp])}[plugins."io.containerd.cri.v1.runtime".containerd]\ndefault_runtime_name = "gone"\n`,
      [snp],
      /default_runtime_name is "gone"/,
    ],
  ])("%s", (_, before, after, entries, problem) => {
    const removed = { handlers: [tdx.handler], proxyPlugins: [] };
    const problems = compareDumps(before, after, { entries, removed }).join("\n");
    if (problem === undefined) expect(problems).toBe("");
    else expect(problems).toMatch(problem);
  });

  test("what should be removed is still there", () => {
    const both = edited(base, [snp, tdx]);
    const removed = { handlers: [snp.handler, tdx.handler], proxyPlugins: [] };
    expect(compareDumps(both, both, { entries: [tdx], removed })).toEqual([
      `handler ${snp.handler} would still be served`,
    ]);
    expect(compareDumps(both, base, { entries: [], removed })).toEqual([]);
    expect(compareDumps(base, both, { entries: [tdx], removed: nothing })).toHaveLength(1);
  });
});

describe("the node's containerd is asked", () => {
  /** A node with the entry's files, whose containerd dumps a file as it is: version 3 has the shape of a dump. */
  async function prepared(options: NodeOptions = {}, config = v3) {
    const host = nodeOf("containerd", {
      ...options,
      files: {
        "/etc/containerd/config.toml": config,
        [snp.entry.runtimePath]: "#!",
        [snp.entry.options?.ConfigPath ?? ""]: "",
        ...options.files,
      },
    });
    host.put(snp.entry.runtimePath, "#!", { mode: 0o755, uid: 0, gid: 0 });
    host.programs.set("containerd", async (args) => {
      if (args[0] === "--version") return { stdout: "containerd x v2.2.9 y\n" };
      if (args.join(" ") === "config default") return { stdout: v3 };
      const text = (await host.readFile(args[1] ?? "")).toString();
      return text.includes("unloadable")
        ? { code: 1, stderr: `level=info\ncontainerd: ${args[1]}: unloadable\n` }
        : { stdout: text };
    });
    const located = await locate(host, { name: "containerd" });
    const configuration = await readConfiguration(host, located);
    const next = editConfiguration(configuration.edited, [snp], editContext(located, configuration));
    return { host, located, next, check: () => validateConfiguration(host, located, next, [snp]) };
  }

  test("in the file's folder, and nothing stays behind", async () => {
    const { host, check } = await prepared();
    const before = host.tree();
    await check();
    expect(host.tree()).toEqual(before);
    expect(host.points).toContain("write /etc/containerd/.config.toml.contrast-runtime-candidate");
  });

  test("about a file that imports itself, which a copy would import in the place of its own bytes", async () => {
    const { host, check } = await prepared({}, `imports = ["*.toml", "/etc/containerd/config.toml"]\n${v3}`);
    const asked: string[] = [];
    const write = host.createFile.bind(host);
    host.createFile = (path, content, attributes) => {
      asked.push(String(content));
      return write(path, content, attributes);
    };
    await check();
    expect(asked).toEqual([expect.not.stringContaining("config.toml")]);
  });

  test("even if there is neither a file nor a folder for it yet", async () => {
    const { host, check } = await prepared();
    host.nodes.delete("/etc/containerd/config.toml");
    host.nodes.delete("/etc/containerd");
    await check();
    expect(host.points).toContain("write /run/.config.toml.contrast-runtime-candidate");
  });

  test.each<[string, string, RegExp]>([
    ["a missing import", `imports = ["gone.toml"]\n${v3}`, /imports \/etc\/containerd\/gone\.toml, which is not there/],
    [
      "a file that it does not load already",
      `${v3}# unloadable\n`,
      /does not load .* as it is now: containerd: .*unloadable/,
    ],
  ])("refused: %s", async (_, config, message) => {
    const { host, check } = await prepared({}, config);
    const before = host.tree();
    await expect(check()).rejects.toThrow(message);
    expect(host.tree()).toEqual(before);
  });

  const text = (path: string, imports: string) => ({ [`/etc/containerd/${path}`]: `imports = [${imports}]\n` });
  test.each<[string, Record<string, string>, RegExp | undefined]>([
    [
      "an import of an import that is not there",
      text("a/1.toml", '"gone.toml"'),
      /a\/1\.toml imports .*a\/gone\.toml, which/,
    ],
    ["one of a hidden file", text("a/.1.toml", '"gone.toml"'), /a\/\.1\.toml imports .*gone\.toml, which/],
    ["one of a file in another folder", text("a/1.txt", '"gone.toml"'), undefined],
    ["a circle", { ...text("a/1.toml", '"../config.toml", "2.toml"'), ...text("a/2.toml", '"1.toml"') }, undefined],
  ])("imports of imports, by patterns of folders: %s", async (_, files, message) => {
    const { check } = await prepared({ files }, `imports = ["/etc/*/[a-c]/*.toml"]\n${v3}`);
    if (message === undefined) await check();
    else await expect(check()).rejects.toThrow(message);
  });

  test("refused: an invalid pattern", async () => {
    const { check } = await prepared({}, `imports = ["[z-a]*.toml"]\n${v3}`);
    await expect(check()).rejects.toThrow('[z-a]*.toml" in the imports of containerd');
  });

  test("refused: a candidate that does not load, with the file's own name in the message", async () => {
    const { host, located, next } = await prepared();
    const broken = Buffer.concat([next ?? Buffer.alloc(0), Buffer.from("# unloadable\n")]);
    await expect(validateConfiguration(host, located, broken, [snp])).rejects.toThrow(
      /put into \/etc\/containerd\/config.toml: .*does not load it: containerd: \/etc\/containerd\/config.toml: unloadable/,
    );
  });

  test("refused: a payload that is not there", async () => {
    const { host, check } = await prepared();
    host.put(snp.entry.runtimePath, "#!");
    await expect(check()).rejects.toThrow(/shim .* not executable/);
    host.nodes.delete(snp.entry.options?.ConfigPath ?? "");
    await expect(check()).rejects.toThrow(/Kata configuration .* is not there/);
  });

  test("refused: a folder to which nothing can be written", async () => {
    const { host, check } = await prepared();
    host.onPoint = (point, when) => {
      if (when === "before" && point.startsWith("write ")) throw Object.assign(new Error("EROFS"), { code: "EROFS" });
    };
    await expect(check()).rejects.toThrow(/Nothing can be written to \/etc\/containerd \(EROFS\)/);
  });

  test("imports of a linked file are relative to the link", async () => {
    const { host } = await prepared({ files: { "/etc/containerd/conf.d/a.toml": "" } });
    const text = `imports = ["conf.d/a.toml"]\n${v3}`;
    host.nodes.delete("/etc/containerd/config.toml");
    host.put("/data/c.toml", text);
    host.link("/etc/containerd/config.toml", "/data/c.toml");
    const located = await locate(host, { name: "containerd" });
    const next = editConfiguration(
      Buffer.from(text),
      [snp],
      editContext(located, await readConfiguration(host, located)),
    );
    await validateConfiguration(host, located, next, [snp]);
    expect(host.points).toContain("write /etc/containerd/.config.toml.contrast-runtime-candidate");
  });

  test("on 1.7 an import that replaces the section is found without a containerd", async () => {
    const foreign = '[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "x"\n';
    const { host, located, next } = await prepared({ files: { "/etc/containerd/conf.d/99-nvidia.toml": foreign } });
    host.put("/etc/containerd/config.toml", 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n');
    const older = { ...located, version: "1.7.24", binary: undefined };
    await expect(validateConfiguration(host, older, next, [snp])).rejects.toThrow(
      /99-nvidia\.toml has a table .* replaces/,
    );
    // Handlers can be removed even from what is already hidden.
    await validateConfiguration(host, older, next, []);
    await validateConfiguration(host, { ...older, version: "2.2.9" }, next, [snp]);
  });

  test("a handler is not removed as long as another program's copy of its table would keep it", async () => {
    const ours = edited(`imports = ["/etc/containerd/conf.d/*.toml"]\n${v3}`, [snp]);
    const copy = "/etc/containerd/conf.d/99-nvidia.toml";
    const { host, located, next } = await prepared({ files: { [copy]: edited(v3, [snp, tdx]) } });
    host.put("/etc/containerd/config.toml", ours);
    await expect(validateConfiguration(host, located, Buffer.from(v3), [])).rejects.toThrow(
      `handler ${snp.handler} would still be served, because ${copy} has a copy of its table: delete the copy and restart containerd.service. Correct this`,
    );
    // One of a handler that was never ours is none of our business, and one that stays may be there twice.
    host.put(copy, edited(v3, [tdx]));
    await validateConfiguration(host, { ...located, binary: undefined }, Buffer.from(v3), []);
    host.put(copy, edited(v3, [snp]));
    await validateConfiguration(host, { ...located, binary: undefined }, next, [snp]);
  });

  test.each([
    ["1.7.24", 3],
    ["2.2.9", 4],
    ["2.4.2", 5],
  ])("refused by the import's name: what containerd %s cannot read, version %i", async (version, newer) => {
    const { host, located, next } = await prepared({
      files: { "/etc/containerd/conf.d/a.toml": `version = ${newer}\n` },
    });
    host.put("/etc/containerd/config.toml", 'version = 2\nimports = ["conf.d/*.toml"]\n');
    const older = { ...located, version, binary: undefined };
    await expect(validateConfiguration(host, older, next, [snp])).rejects.toThrow(
      `/etc/containerd/conf.d/a.toml has version = ${newer}, but containerd ${version} reads versions up to ${newer - 1}`,
    );
  });

  test.each([
    ["a newer version", "version = 3\n"],
    ["the newer plugin's runtimes", '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]\na = 1\n'],
  ])("on 2.0 to 2.2 an import with %s, which changes how the file is read", async (_, foreign) => {
    const { host, located, next } = await prepared({ files: { "/etc/containerd/conf.d/a.toml": foreign } });
    host.put("/etc/containerd/config.toml", `version = 2\nimports = ["conf.d/*.toml"]\n`);
    const without = { ...located, binary: undefined };
    await expect(validateConfiguration(host, without, next, [snp])).rejects.toThrow(
      /one version and the same plugin ids/,
    );
    await validateConfiguration(host, { ...without, version: "2.4.2" }, next, [snp]);
    // Tables of the newer plugin are read whatever the imports say.
    host.put("/etc/containerd/config.toml", `version = 3\nimports = ["conf.d/*.toml"]\n`);
    host.put("/etc/containerd/conf.d/a.toml", v2);
    await validateConfiguration(host, without, next, [snp]);
  });
});
