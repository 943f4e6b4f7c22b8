import { join } from "node:path";
import { buildImage, localPayloads } from "../../tools/image/build.ts";
import { buildPrograms } from "../../tools/image/bundle.ts";
import { toStderr } from "../../tools/process/progress.ts";

/** The installer's image where a stack looks for one that was built here, with all payloads of the project. */
export async function buildProjectImage(project: string): Promise<void> {
  const { nodeInstaller } = await buildPrograms();
  const payloads = await localPayloads(undefined, join(project, ".local/payloads"));
  await buildImage({ layoutDir: join(project, ".local/image"), program: nodeInstaller, payloads }, toStderr);
}
