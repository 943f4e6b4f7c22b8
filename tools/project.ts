import { resolve } from "node:path";

/** Whether this is the package that `npm run build` compiled, in the node_modules of another program. */
export const isPackage = import.meta.filename.endsWith(".js");

/** Where payloads, manifests and the installer's image are kept: in the clone, or where the package's bin was called. */
export const projectDirectory = isPackage ? process.cwd() : resolve(import.meta.dirname, "..");
