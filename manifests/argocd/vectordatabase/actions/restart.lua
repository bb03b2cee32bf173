-- Rolls all data nodes, one at a time, also onto what a newer operator would run.
-- Argo CD has no global of this name.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["rhumb.dev/restarted-at"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
