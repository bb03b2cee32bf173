-- Made by the operator; what matters of it is in the status of its VectorDatabase.
if obj.status ~= nil and obj.status.leader ~= nil then
  return { status = "Healthy", message = "Led by " .. obj.status.leader.pod }
end
return { status = "Progressing", message = "No leader" }
