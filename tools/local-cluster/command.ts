// local-cluster: the command behind the component LocalCluster, `npm start` and the tests.
import { parseArgs } from "node:util";
import type { ClusterInput } from "../../components/config/local-cluster.ts";
import { Refusal } from "../../runtime/refusal.ts";
import { toStderr } from "../programs/progress.ts";
import { clusterStatus, destroyCluster, ensureCluster, runOnNode } from "./cluster.ts";

const usage = `usage: contrast-runtime local-cluster COMMAND --name NAME
  ensure  [--nodes JSON]   make or repair the cluster; prints {kubeconfig, registry, networkNamespace, nodes, images}
                           JSON: [{"name": "node-1", "containerd": "2.4", "labels": {}}, …]
  destroy [--force]        remove the cluster; --force: even if it belongs to another installation
  status                   print what exists of the cluster
  exec --node NODE -- COMMAND…   run a command inside a node`;

/** Prints progress to standard error, the result to standard output. Returns the exit code: 2 for a wrong command line. */
export async function main(argv: string[]): Promise<number> {
  if (argv[0] === "--help") {
    console.log(usage);
    return 0;
  }
  try {
    return await execute(argv);
  } catch (error) {
    console.error(error instanceof Refusal ? error.message : error);
    return error instanceof Refusal && error.code === "usage" ? 2 : 1;
  }
}

async function execute(argv: string[]): Promise<number> {
  const separator = argv.indexOf("--");
  const command = separator === -1 ? [] : argv.slice(separator + 1);
  const { positionals, values } = parseCommandLine(separator === -1 ? argv : argv.slice(0, separator));
  const name = values.name;
  if (!name || positionals.length !== 1) throw new Refusal("usage", usage);
  switch (positionals[0]) {
    case "ensure": {
      const nodes = values.nodes === undefined ? {} : { nodes: parseNodes(values.nodes) };
      // One line, because the component reads the last line as the result.
      console.log(JSON.stringify(await ensureCluster({ name, ...nodes }, toStderr)));
      return 0;
    }
    case "destroy":
      await destroyCluster(name, toStderr, { force: values.force });
      return 0;
    case "status":
      console.log(JSON.stringify(await clusterStatus(name), undefined, 2));
      return 0;
    case "exec": {
      if (!values.node || command.length === 0) throw new Refusal("usage", usage);
      const result = await runOnNode(name, values.node, command);
      process.stdout.write(result.stdout);
      process.stderr.write(result.stderr);
      return result.code;
    }
  }
  throw new Refusal("usage", usage);
}

function parseCommandLine(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        name: { type: "string" },
        nodes: { type: "string" },
        node: { type: "string" },
        force: { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw new Refusal("usage", `${(error as Error).message}\n${usage}`);
  }
}

function parseNodes(text: string): NonNullable<ClusterInput["nodes"]> {
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal("usage", `--nodes is not JSON: ${text}\n${usage}`);
  }
}
