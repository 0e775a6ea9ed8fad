# Two repairs for ROS 2 from PyPI's wheels in a virtual environment; they change nothing for an installed ROS 2.
#
# - The wheels' imported targets name include folders of the machine that built them
#   (/opt/python/cp311-cp311/include/...), and CMake refuses folders that do not exist: drop those.
# - NumPy's headers lie in the virtual environment, and where that is a folder of the source tree CMake
#   refuses to export them: name them for the build only.
function(repair_include_folders generated_target)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(folders)
      set(present "")
      foreach(folder IN LISTS folders)
        if(folder MATCHES "^\\$<" OR EXISTS "${folder}")
          list(APPEND present "${folder}")
        endif()
      endforeach()
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${present}")
    endif()
  endforeach()

  get_target_property(folders ${generated_target} INTERFACE_INCLUDE_DIRECTORIES)
  if(NOT folders)
    return()  # up to Jazzy it names none
  endif()
  set(exportable "")
  foreach(folder IN LISTS folders)
    string(FIND "${folder}" "${CMAKE_CURRENT_SOURCE_DIR}/" position)
    if(position EQUAL 0)
      list(APPEND exportable "$<BUILD_INTERFACE:${folder}>")
    else()
      list(APPEND exportable "${folder}")
    endif()
  endforeach()
  set_target_properties(${generated_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${exportable}")
endfunction()
