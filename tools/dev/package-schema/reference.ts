import { typeText } from "./breaking.ts";
import type { PackageSchema, Property } from "./schema.ts";

const name = (token: string) => token.replace(/^.*:/, "");

/** The pages with every argument and output, as Markdown, by path. */
export const referencePages = (schema: PackageSchema): Record<string, string> => ({
  "docs/components.md": componentsPage(schema),
  "docs/component-types.md": typesPage(schema),
});

function componentsPage({ resources, functions }: PackageSchema): string {
  const parts = [
    "# Components, field by field\n",
    "Made from the package's schema, as are the SDKs of all languages. Names are those of YAML and TypeScript: Python writes",
    "`minimum_nodes`, Go and C# `MinimumNodes`. A *plain* argument must be known when the program runs; every other one may",
    "be an output of another resource. [Their types](component-types.md), [other languages](languages.md),",
    "[as a library](library.md).",
  ];
  for (const [token, { description = "", inputProperties, requiredInputs, properties }] of Object.entries(resources))
    parts.push(
      `\n## ${name(token)}\n`,
      `${description}\n`,
      ...table("argument", inputProperties, requiredInputs),
      "",
      ...table("output", properties),
    );
  for (const [token, { description, inputs, outputs }] of Object.entries(functions))
    parts.push(
      `\n## ${name(token)}\n`,
      `A function. ${description}\n`,
      ...table("argument", inputs.properties, inputs.required),
      "",
      ...table("result", outputs.properties),
    );
  return `${parts.join("\n")}\n`;
}

function typesPage({ types }: PackageSchema): string {
  const parts = [
    "# Types of the components' arguments and outputs\n",
    "Made from the package's schema, as is [the page of the components](components.md).",
  ];
  for (const [token, { description = "", properties, required, enum: words }] of Object.entries(types))
    parts.push(
      `\n## ${name(token)}\n`,
      ...(description ? [`${description}\n`] : []),
      ...(words
        ? [
            "| word | meaning |",
            "| --- | --- |",
            ...words.map((word) => `| \`${word.value}\` | ${word.description ?? ""} |`),
          ]
        : table("field", properties, required)),
    );
  return `${parts.join("\n")}\n`;
}

const table = (head: string, properties: Record<string, Property> = {}, required?: string[]): string[] => [
  `| ${head} | type | meaning |`,
  "| --- | --- | --- |",
  ...Object.entries(properties).map(([key, property]) => {
    const must = required?.includes(key) ? "**Required.** " : "";
    const secret = property.secret ? ", secret" : "";
    const text = (property.description ?? "").replaceAll("\n\n", " ").replaceAll("|", "\\|");
    return `| \`${key}\` | ${typeText(property)}${secret} | ${must}${text} |`;
  }),
];
