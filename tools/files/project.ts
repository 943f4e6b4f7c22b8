import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** Whether this is the package that `npm run build` compiled, in the node_modules of another program. */
export const isPackage = import.meta.filename.endsWith(".js");

/** The product's own folder: the clone, or the package. Compiled modules lie deeper in it than their sources. */
export const packageRoot = findPackageRoot();

function findPackageRoot(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, "package.json")) && dirname(root) !== root) root = dirname(root);
  return root;
}

/** Where payloads, manifests and the installer's image are kept: in the clone, or where the package's bin was called. */
export const projectDirectory = isPackage ? process.cwd() : packageRoot;
