import { pluginVersion } from "../../../tools/engine/versions.ts";
import { serve } from "../plugin.ts";
import { azureProvider } from "./provider.ts";

await serve(pluginVersion("azure-native"), azureProvider);
