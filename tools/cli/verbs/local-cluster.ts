import { InvalidArgumentError } from "@commander-js/extra-typings";
import { clusterOptions } from "../../../components/config/local-cluster.ts";
import { check } from "../../../components/config/mistakes.ts";
import { toStderr } from "../../process/progress.ts";
import { exitWith, Verb } from "../command.ts";

const cluster = () => import("../../local-cluster/cluster.ts");

/** The command behind the component LocalCluster and the tests. */
export const verb = () =>
  new Verb("local-cluster")
    .description("Makes, repairs, shows or removes a Kubernetes cluster on this machine.")
    .addCommand(ensure())
    .addCommand(destroy())
    .addCommand(status())
    .addCommand(exec());

const command = (name: string) => new Verb(name).requiredOption("--name <name>", "the cluster's name", clusterName);

const ensure = () =>
  command("ensure")
    .description("Makes or repairs the cluster; prints {kubeconfig, registry, networkNamespace, nodes, images}.")
    .option("--nodes <json>", 'such as [{"name": "node-1", "containerd": "2.4", "labels": {}}, …]', nodes)
    .action(async ({ name, nodes }) => {
      const { ensureCluster } = await cluster();
      // One line, because the component reads the last line as the result.
      console.log(JSON.stringify(await ensureCluster({ name, ...(nodes && { nodes }) }, toStderr)));
    });

const destroy = () =>
  command("destroy")
    .description("Removes the cluster.")
    .option("--force", "even if it belongs to another installation")
    .action(async ({ name, force = false }) => (await cluster()).destroyCluster(name, toStderr, { force }));

const status = () =>
  command("status")
    .description("Prints what exists of the cluster.")
    .action(async ({ name }) => console.log(JSON.stringify(await (await cluster()).clusterStatus(name), undefined, 2)));

const exec = () =>
  command("exec")
    .description("Runs a command inside a node, and exits as it does.")
    .usage("--name <name> --node <name> -- <command...>")
    .requiredOption("--node <name>", "the node")
    .argument("<command...>", "the command's words")
    .action(async (words, { name, node }) => {
      const { stdout, stderr, code } = await (await cluster()).runOnNode(name, node, words);
      process.stdout.write(stdout);
      process.stderr.write(stderr);
      exitWith(code);
    });

function clusterName(text: string): string {
  const { data, error } = clusterOptions.shape.name.safeParse(text);
  if (data !== undefined) return data;
  throw new InvalidArgumentError(`It ${error?.issues.map(({ message }) => message).join(", ")}.`);
}

function nodes(text: string) {
  const { value, mistakes } = check(clusterOptions.shape.nodes, parsed(text), "nodes");
  if (value !== undefined) return value;
  throw new InvalidArgumentError(mistakes.map(({ key, message }) => `${key}: ${message}`).join(" "));
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InvalidArgumentError(`It must be JSON: ${(error as Error).message}.`);
  }
}
