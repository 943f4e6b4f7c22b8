import { Verb } from "../command.ts";

export const verb = () =>
  new Verb("render")
    .description(
      `Writes what a stack's file asks for as Kubernetes manifests, without an engine, a state or a cluster: for kubectl apply -k,
Argo CD or Flux.`,
    )
    .requiredOption("--stack <file>", "the stack's file, such as Pulumi.prod.yaml; its cluster is not looked at")
    .requiredOption("--output <directory>", "where to write; commit it")
    .option(
      "--drop-class <name>",
      "a RuntimeClass that the stack no longer has and no pod uses any more",
      collected,
      [],
    )
    .action(async (options) => {
      const { render } = await import("../../render/render.ts");
      for (const line of await render(options)) console.log(line);
    });

const collected = (name: string, names: string[]): string[] => [...names, name];
