import fc from "fast-check";
import { Refusal } from "../../../../runtime/refusal.ts";

/** Text of configuration files as administrators and distributions write them: valid for containerd 2.x and 1.7. */

export const ids = { old: "io.containerd.grpc.v1.cri", new: "io.containerd.cri.v1.runtime" } as const;

/** An administrator's, in the form that every supported containerd reads. */
export const adminsFile = `version = 2

[plugins."${ids.old}"]
  sandbox_image = "registry.k8s.io/pause:3.9" # the admin's
  [plugins."${ids.old}".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."${ids.old}".containerd.runtimes.runc.options]
      SystemdCgroup = true
`;

/** What the action is refused with. */
export function refusal(act: () => unknown): Refusal {
  try {
    act();
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

const quoted = (id: string): fc.Arbitrary<string> => fc.constantFrom(`"${id}"`, `'${id}'`);
const space = fc.constantFrom("", " ", "\t", "  ");
const comment = fc.constantFrom("", "", " # why", "\t#\u00e9\u4e2d");
const scalar = fc.oneof(
  fc.constantFrom("true", "false", "0", "-999", "1_000", "0x10", "1.5", "1979-05-27T07:32:00Z", '"a # b"', "'C:\\x'"),
  fc.constantFrom(
    '"\\u00e9\\n"',
    '"""\n[not.a.table]\n"""',
    "'''# END contrast runtime'''",
    "[]",
    '[ "a", # x\n  "b",\n]',
  ),
  fc.constantFrom("{ a = 1, b.c = 2 }", "[ { a = 1 }, { a = 2 } ]", "9223372036854775807"),
);
const filler = fc.constantFrom("", "# a comment", "\t# indented", "   ");

/** `name = value` lines with distinct names. */
const keys = (prefix: string): fc.Arbitrary<string[]> =>
  fc
    .array(fc.tuple(space, space, scalar, comment, filler), { maxLength: 4 })
    .map((rows) =>
      rows.flatMap(([indent, gap, value, note, before], index) => [
        before,
        `${indent}${prefix}${index}${gap}=${gap}${value}${note}`,
      ]),
    );

interface Section {
  header: string;
  body: string[];
}

/** The runtimes of a CRI section: as headers, as dotted keys, or none at all. */
const runtimes = (plugin: string): fc.Arbitrary<Section[]> =>
  fc.oneof(
    fc.constant<Section[]>([]),
    fc.subarray(["runc", "crun", "kata", '"with.dot"'], { minLength: 1 }).map((names) =>
      names.flatMap((name) => [
        { header: `[plugins.${plugin}.containerd.runtimes.${name}]`, body: ['runtime_type = "io.containerd.runc.v2"'] },
        { header: `[ plugins.${plugin}.containerd.runtimes.${name}.options ]`, body: ["\tSystemdCgroup = true"] },
      ]),
    ),
    fc.constant<Section[]>([
      {
        header: `[plugins.${plugin}.containerd]`,
        body: ['runtimes.runc.runtime_type = "io.containerd.runc.v2"', "runtimes.runc.options.SystemdCgroup = true"],
      },
    ]),
    fc.constant<Section[]>([
      { header: `[plugins.${plugin}.containerd.runtimes]`, body: ['runc.runtime_type = "io.containerd.runc.v2"'] },
      { header: `[plugins.${plugin}.containerd]`, body: ["discard_unpacked_layers = true"] },
    ]),
  );

const imports = fc.constantFrom(
  [],
  ['imports = ["/etc/containerd/conf.d/*.toml"]'],
  ["imports = [", "  '/a/*.toml', # x", "]"],
  ["imports = []"],
);

export interface Generated {
  text: string;
  version: 1 | 2 | 3 | 4;
}

/** A whole file of one of the versions. */
export const configuration = (versions: readonly (1 | 2 | 3 | 4)[]): fc.Arbitrary<Generated> =>
  fc.constantFrom(...versions).chain((version) =>
    fc
      .record({
        top: fc.tuple(filler, imports, keys("top")),
        plugin: quoted(version === 1 ? "cri" : version === 2 ? ids.old : ids.new).chain(runtimes),
        others: fc.uniqueArray(fc.constantFrom("grpc", "debug", "metrics", "cgroup", '"quoted table"'), {
          maxLength: 3,
        }),
        bodies: fc.array(keys("key"), { minLength: 3, maxLength: 3 }),
        unversioned: fc.boolean(),
        shuffle: fc.boolean(),
        lineEnd: fc.constantFrom("\n", "\n", "\r\n"),
        finalLineEnd: fc.boolean(),
        trailing: fc.constantFrom("", "", "\n\n", "\n# end", "  "),
      })
      .map((parts) => {
        const others = parts.others.map((name, index) => ({ header: `[${name}]`, body: parts.bodies[index] ?? [] }));
        const sections: Section[] = parts.shuffle ? [...parts.plugin, ...others] : [...others, ...parts.plugin];
        const [note, imported, top] = parts.top;
        const head = version === 1 && parts.unversioned ? [] : [`version = ${version}`];
        const lines = [
          note,
          ...head,
          ...imported,
          ...top,
          ...sections.flatMap(({ header, body }) => [header, ...body]),
        ];
        const text = lines.join("\n") + parts.trailing + (parts.finalLineEnd ? "\n" : "");
        return { text: text.replaceAll("\n", parts.lineEnd), version };
      }),
  );
