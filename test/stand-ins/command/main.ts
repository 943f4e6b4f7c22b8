import { pluginVersion } from "../../../tools/engine/versions.ts";
import { serve } from "../plugin.ts";
import { commandProvider } from "./provider.ts";

await serve(pluginVersion("command"), commandProvider);
